"""The work for the whole cluster: promotion, retention, and jobs that have expired."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from qworker.maintenance import Maintenance
from tests.database import Database
from tests.qworker.claimer import NOW, TOKEN, Claimer

maintenance = Maintenance()


def test_due_jobs_become_available_and_the_others_wait(claimer: Claimer) -> None:
    due, future, overdue = claimer.schedule(-1, 5, -3600)
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp()) == ["default"] * 2
    assert {job.id for job in claimer.claim(10)} == {due, overdue}
    assert claimer.row(future)["state"] == "scheduled"
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp() + 5) == ["default"]


def test_the_jobs_that_were_due_first_are_promoted_first(claimer: Claimer) -> None:
    later = claimer.schedule(*([-1] * 1000))
    (first,) = claimer.schedule(-2)
    maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())
    assert claimer.row(first)["state"] == "available"
    left = claimer.conn.execute("SELECT id FROM qworker.job WHERE state = 'scheduled'").fetchall()
    assert len(left) == 1
    assert left[0][0] in later


def test_a_promoted_job_comes_after_those_that_wait(claimer: Claimer) -> None:
    (late,) = claimer.schedule(-1)
    waiting = claimer.insert(2)
    maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())
    assert [job.id for job in claimer.claim(10)] == [*waiting, late]


def test_one_statement_promotes_a_thousand_jobs(claimer: Claimer) -> None:
    claimer.schedule(*(-number / 1000 for number in range(1, 1501)))
    assert len(maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())) == 1000
    assert len(maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())) == 500
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp()) == []


def test_promotion_starts_at_the_given_time(claimer: Claimer) -> None:
    old, new = claimer.schedule(-120, -1)
    maintenance.promote(claimer.conn, NOW.timestamp() - 60, at=NOW.timestamp())
    assert (claimer.row(old)["state"], claimer.row(new)["state"]) == ("scheduled", "available")


def test_schedulers_promote_without_waiting_for_each_other(database: Database, claimer: Claimer) -> None:
    claimer.schedule(-2, -1)
    with Claimer(database) as other, other.conn.transaction(force_rollback=True):
        assert len(maintenance.promote(other.conn, 0.0)) == 2
        assert maintenance.promote(claimer.conn, 0.0) == []
    assert len(maintenance.promote(claimer.conn, 0.0)) == 2


def fill(conn: psycopg.Connection[Any], ages: Iterable[int]) -> float:
    """Store a job and a log that ended so many days ago each; return now (seconds since 1970)."""
    now = time.time()
    for age in ages:
        conn.execute(
            "WITH job AS ("
            " INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority,"
            " crashes, node_losses, is_hook, queue, task, args)"
            " SELECT %(age)s, t, t, 'completed', 1, qworker.history_day(t), 5, 0, 0, false, 'default', 'noop', '{}'"
            "   FROM to_timestamp(%(at)s) AS t RETURNING *)"
            " INSERT INTO qworker.job_log (job, claimed_at, ended_at, attempt, dropped, ring_day, lines)"
            " SELECT id, finished_at, finished_at, 1, 0, ring_day, '[]' FROM job",
            {"age": age, "at": now - 86_400 * age},
        )
    return now


def test_expired_days_are_truncated_and_the_others_kept(claimer: Claimer) -> None:
    now = fill(claimer.conn, (0, 1, 6, 7, 8, 9, 20, 30))
    stale = maintenance.expired_days(claimer.conn, history_days=7, log_days=19, at=now)
    assert [ring for ring, _ in stale] == ["job_history"] * 4 + ["job_log"] * 2
    assert all(maintenance.truncate_day(claimer.conn, *day) for day in stale)
    assert maintenance.expired_days(claimer.conn, history_days=7, log_days=19, at=now) == []
    kept = claimer.conn.execute("SELECT id FROM qworker.job_history ORDER BY id").fetchall()
    assert [age for (age,) in kept] == [0, 1, 6, 7]
    kept = claimer.conn.execute("SELECT job FROM qworker.job_log ORDER BY job").fetchall()
    assert [age for (age,) in kept] == [0, 1, 6, 7, 8, 9]


@pytest.mark.parametrize("keep", [1, 29])
def test_today_and_tomorrow_are_never_expired_days(claimer: Claimer, keep: int) -> None:
    now = fill(claimer.conn, range(-1, 31))  # every day of the ring
    stale = maintenance.expired_days(claimer.conn, history_days=keep, log_days=keep, at=now)
    today = int(now // 86_400)
    for ring in ("job_history", "job_log"):
        days = [day for of, day in stale if of == ring]
        assert days == [(today - age) % 32 for age in range(keep + 1, 31)]
        assert days, "a ring of which nothing is ever emptied grows for ever"


def test_days_expire_by_utc_whatever_the_time_zone_of_the_session(claimer: Claimer) -> None:
    fill(claimer.conn, range(-1, 31))
    claimer.conn.execute("SET timezone = 'Europe/Berlin'")
    # Its clocks have been set forward, and back, in the days before.
    for moment in (datetime(2026, 3, 30, 23, 30, tzinfo=UTC), datetime(2026, 10, 26, 0, 30, tzinfo=UTC)):
        now = moment.timestamp()
        stale = maintenance.expired_days(claimer.conn, history_days=7, log_days=29, at=now)
        assert {day for ring, day in stale if ring == "job_history"} == {
            (int(now // 86_400) - age) % 32 for age in range(8, 31)
        }


@pytest.mark.parametrize(("ring", "day"), [("job", 1), ("job_history", 32), ("job_history", -1), ("job_log", 100)])
def test_nothing_but_a_day_of_a_ring_is_truncated(claimer: Claimer, ring: str, day: int) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{ring} has no day {day}"):
        maintenance.truncate_day(claimer.conn, ring, day)


def test_a_day_that_a_session_reads_is_not_waited_for(claimer: Claimer, database: Database) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    claimer.statements.acknowledge(claimer.conn, TOKEN, [job])
    today = claimer.conn.execute("SELECT ring_day FROM qworker.job_history").fetchall()[0][0]
    claimer.conn.execute("SET lock_timeout = '50ms'")
    with database.connect(autocommit=False) as reader:
        reader.execute("LOCK TABLE qworker.job_history IN ACCESS SHARE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            maintenance.truncate_day(claimer.conn, "job_history", today)
    assert maintenance.truncate_day(claimer.conn, "job_history", today)
    assert not maintenance.truncate_day(claimer.conn, "job_history", today)


def test_failed_jobs_are_discarded_when_they_are_old(claimer: Claimer) -> None:
    old, new = claimer.insert(2)
    for job, age in ((old, timedelta(days=31)), (new, timedelta(days=29))):
        claimer.conn.execute("UPDATE qworker.job SET state = 'failed', failed_at = %s WHERE id = %s", (NOW - age, job))
    assert len(maintenance.discard_failed(claimer.conn, 30 * 86_400)) == 1
    states = claimer.conn.execute("SELECT id, state FROM qworker.jobs ORDER BY id").fetchall()
    assert states == [(old, "discarded"), (new, "failed")]


def test_jobs_that_were_not_started_in_time_are_cancelled(claimer: Claimer) -> None:
    running, late, early, tried = claimer.insert(4)
    claimer.claim(1)
    claimer.conn.execute("UPDATE qworker.job SET attempt = 1 WHERE id = %s", (tried,))
    claimer.conn.execute(
        "UPDATE qworker.job SET expires_at ="
        " clock_timestamp() + make_interval(secs => CASE id WHEN %s THEN 60 ELSE -1 END)",
        (early,),
    )
    assert len(maintenance.expire(claimer.conn)) == 1
    states = claimer.conn.execute("SELECT id, state FROM qworker.jobs ORDER BY id").fetchall()
    assert states == [(running, "running"), (late, "cancelled"), (early, "available"), (tried, "available")]


def test_jobs_released_after_a_request_to_cancel_are_cancelled(claimer: Claimer) -> None:
    running, returned, other = claimer.insert(3)
    claimer.claim(1)
    claimer.conn.execute(
        "UPDATE qworker.job SET cancel_requested_at = clock_timestamp(), attempt = 1 WHERE id = ANY (%s)",
        ([running, returned],),
    )
    assert len(maintenance.expire(claimer.conn)) == 1
    rows = claimer.conn.execute("SELECT id, state, errors -> 0 ->> 'type' FROM qworker.jobs ORDER BY id").fetchall()
    assert rows == [(running, "running", None), (returned, "cancelled", "Cancelled"), (other, "available", None)]
