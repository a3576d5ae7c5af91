"""A worker's statements against a real server: what they take, and what they make of it."""

import json
import sys
import threading
from statistics import median
from time import perf_counter
from typing import Any

import pytest

from qworker.maintenance import Maintenance
from tests.database import Database
from tests.qworker.claimer import OTHER, TOKEN, Claimer

# Claims


def test_a_delayed_job_has_waited_since_it_was_due(claimer: Claimer) -> None:
    """Its delay is not part of its wait, neither when it is claimed nor in the history."""
    (job,) = claimer.schedule(-5.0)
    claimer.conn.execute("UPDATE qworker.job SET enqueued_at = clock_timestamp() - interval '1 hour'")
    assert Maintenance().promote(claimer.conn, float("-inf"))
    claimer.conn.execute("UPDATE qworker.job SET run_at = clock_timestamp() - interval '5 s'")
    (row,) = claimer.claim(1)
    assert row.waited == pytest.approx(5.0, abs=1.0)
    assert claimer.statements.release(claimer.conn, TOKEN, [job]) == [job]
    (row,) = claimer.claim(1)
    assert row.waited == pytest.approx(5.0, abs=1.0)
    claimer.statements.acknowledge(claimer.conn, TOKEN, [job])
    ((waited,),) = claimer.conn.execute(
        "SELECT extract(epoch FROM claimed_at - run_at)::float8 FROM qworker.jobs WHERE id = %s", (job,)
    ).fetchall()
    assert waited == pytest.approx(5.0, abs=1.0)


def test_a_retried_job_has_waited_since_its_retry(claimer: Claimer) -> None:
    """The first attempt and the delay are not part of the wait of the second attempt."""
    (job,) = claimer.insert(1)
    claimer.conn.execute("UPDATE qworker.job SET enqueued_at = clock_timestamp() - interval '1 hour'")
    (row,) = claimer.claim(1)
    assert row.waited == pytest.approx(3600.0, abs=1.0)
    claimer.statements.retry(claimer.conn, TOKEN, job, delay=0.0, error="{}")
    assert Maintenance().promote(claimer.conn, float("-inf"))
    (row,) = claimer.claim(1)
    assert 0 <= row.waited < 1.0


@pytest.mark.parametrize("enqueued", ["infinity", "-infinity", "4713-01-01 BC"])
def test_a_wait_that_cannot_be_computed_does_not_stop_the_queue(claimer: Claimer, enqueued: str) -> None:
    """A time edited by hand costs its job a wrong wait, not the claim."""
    claimer.insert(2)
    claimer.conn.execute(
        "UPDATE qworker.job SET enqueued_at = %s WHERE seq = (SELECT min(seq) FROM qworker.job)", (enqueued,)
    )
    assert len(claimer.claim(2)) == 2


def test_a_claim_takes_the_most_urgent_of_the_first_queue_that_has_any(database: Database, claimer: Claimer) -> None:
    late, soon = claimer.insert(2, "second", 0), claimer.insert(2, "first", 5)
    first, urgent = claimer.insert(1, "first", 9), claimer.insert(1, "first", 0)
    claimer.insert(5, "ignored", 0)
    with Claimer(database, ("first", "second")) as worker:
        taken = [[job.id for job in worker.claim(2)] for _ in range(4)]
    assert taken == [[*urgent, soon[0]], [soon[1], *first], late, []]


def test_a_claimed_job_bears_the_marks_of_its_claim(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    (claimed,) = claimer.claim(10)
    assert (claimed.id, claimed.queue, claimed.task, claimed.args, claimed.attempt) == (job, "default", "noop", "{}", 1)
    row = claimer.row(job)
    assert (row["state"], row["token"], row["node"], row["attempt"]) == ("running", TOKEN, 1, 1)
    assert row["claimed_at"] is not None


def test_claims_at_the_same_time_share_the_jobs_and_wait_for_nobody(database: Database, claimer: Claimer) -> None:
    jobs = claimer.insert(6)
    with Claimer(database) as slow, slow.conn.transaction(force_rollback=True):
        assert [job.id for job in slow.claim(2, token=OTHER)] == jobs[:2]
        assert [job.id for job in claimer.claim(2)] == jobs[2:4]
    assert [job.id for job in claimer.claim(10)] == [*jobs[:2], *jobs[4:]]


def test_many_workers_claim_every_job_exactly_once(database: Database, claimer: Claimer) -> None:
    jobs = claimer.insert(2_000)
    taken: list[int] = []

    def work(number: int) -> None:
        with Claimer(database) as worker:
            while found := worker.claim(7, token=number):
                taken.extend(job.id for job in found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == jobs


def test_a_cursor_passes_over_what_lies_before_it(claimer: Claimer) -> None:
    before = claimer.insert(3)
    position = claimer.row(before[-1])["seq"]
    behind = claimer.insert(3)
    assert [job.id for job in claimer.claim(10, cursor=position)] == behind
    assert claimer.claim(10, cursor=position) == []
    assert [job.id for job in claimer.claim(10)] == before


def test_a_job_that_was_not_started_in_time_is_passed_over(claimer: Claimer) -> None:
    late, early, tried = claimer.insert(3)
    claimer.conn.execute(
        "UPDATE qworker.job SET attempt = CASE id WHEN %(tried)s THEN 1 ELSE 0 END,"
        " expires_at = clock_timestamp() + make_interval(secs => CASE id WHEN %(early)s THEN 60 ELSE -1 END)",
        {"tried": tried, "early": early},
    )
    assert [job.id for job in claimer.claim(10)] == [early, tried]
    assert claimer.row(late)["state"] == "available"


def test_a_plan_made_for_an_empty_queue_serves_a_full_one(claimer: Claimer, capsys: pytest.CaptureFixture[str]) -> None:
    claimer.conn.execute("VACUUM ANALYZE qworker.job")
    for _ in range(7):
        assert claimer.claim(64) == []
    claimer.conn.execute("INSERT INTO qworker.job (task) SELECT 'noop' FROM generate_series(1, 200000)")

    claims, acknowledgements = [], []
    for token in range(100, 110):
        started = perf_counter()
        jobs = claimer.claim(64, token=token)
        claims.append(perf_counter() - started)
        started = perf_counter()
        settled = claimer.statements.acknowledge(claimer.conn, token, [job.id for job in jobs])
        acknowledgements.append(perf_counter() - started)
        assert len(settled) == len(jobs) == 64
    with capsys.disabled():
        sys.stdout.write(
            f"\n64 of 200,000 jobs: claimed in {median(claims) * 1000:.1f} ms ({claims[0] * 1000:.1f} ms at first),"
            f" acknowledged in {median(acknowledgements) * 1000:.1f} ms\n"
        )
    assert median(claims) < 0.02
    assert median(acknowledgements) < 0.02


# What follows a claim


def test_an_acknowledgement_moves_jobs_to_the_day_of_the_ring_on_which_they_ended(claimer: Claimer) -> None:
    plain, detailed = claimer.insert(2)
    claimer.claim(2)
    settled = claimer.statements.acknowledge(
        claimer.conn,
        TOKEN,
        [plain, detailed],
        durations=json.dumps({detailed: 1.5}),
        results=json.dumps({detailed: {"a": [None]}}),
    )
    assert sorted(settled) == [plain, detailed]
    rows = claimer.conn.execute(
        "SELECT id, state::text, attempt, duration, result, token, tableoid::regclass::text,"
        "       'qworker.job_history_'"
        "           || lpad(((extract(epoch FROM finished_at)::bigint / 86400) %% 32)::text, 2, '0'),"
        "       claimed_at <= finished_at AND finished_at <= clock_timestamp()"
        "  FROM qworker.job_history WHERE id = ANY (%s) ORDER BY id",
        ([plain, detailed],),
    ).fetchall()
    assert [row[:6] for row in rows] == [
        (plain, "completed", 1, 0.0, None, TOKEN),
        (detailed, "completed", 1, 1.5, {"a": [None]}, TOKEN),
    ]
    assert all(position == expected and ordered for *_, position, expected, ordered in rows)
    assert claimer.conn.execute("SELECT count(*) FROM qworker.job").fetchone() == (0,)


@pytest.mark.parametrize(
    ("moment", "day"),
    [("1970-01-01 00:00+00", 0), ("1970-01-01 23:59:59.999999+00", 0), ("1970-02-02 00:00+00", 0),
     ("1970-02-01 00:00+00", 31), ("2026-01-01 01:30+02", 20453 % 32), ("2026-01-01 00:00+00", 20454 % 32)],
)  # fmt: skip
def test_a_day_of_the_ring_begins_at_midnight_utc(claimer: Claimer, moment: str, day: int) -> None:
    claimer.conn.execute("SET timezone = 'Pacific/Auckland'")
    assert claimer.conn.execute("SELECT qworker.history_day(%s)", (moment,)).fetchone() == (day,)


def test_what_was_handed_back_keeps_its_place_and_its_attempts(claimer: Claimer) -> None:
    jobs = claimer.insert(3)
    before = claimer.row(jobs[0])
    claimer.claim(3)
    assert sorted(claimer.statements.release(claimer.conn, TOKEN, jobs[:2])) == jobs[:2]
    assert claimer.row(jobs[0]) == before
    later = claimer.insert()
    assert [job.id for job in claimer.claim(10)] == [*jobs[:2], *later]


def attempt(claimer: Claimer, job: int) -> dict[str, Any]:
    """Return what an error remembers of the attempt that it ends."""
    query = "SELECT jsonb_build_object('node', node, 'claimed_at', claimed_at) FROM qworker.job WHERE id = %s"
    ((found,),) = claimer.conn.execute(query, (job,))
    return dict(found)


def test_a_retry_is_scheduled_and_remembers_the_error(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    began = attempt(claimer, job)
    assert claimer.statements.retry(claimer.conn, TOKEN, job, delay=60, error='{"type": "First"}') == {job: "scheduled"}
    row = claimer.row(job)
    assert (row["state"], row["attempt"], row["token"], row["node"]) == ("scheduled", 1, None, None)
    assert row["errors"] == [{"type": "First", **began}]
    (left,) = claimer.conn.execute(
        "SELECT extract(epoch FROM %s - clock_timestamp())::float8", (row["run_at"],)
    ).fetchall()[0]
    assert 55 < left <= 60


def test_a_snooze_gives_the_attempt_back_and_counts_bounces(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    for unknown_task_count in (0, 1):
        claimer.conn.execute("UPDATE qworker.job SET state = 'available'")
        claimer.claim(1)
        assert claimer.statements.snooze(claimer.conn, TOKEN, job, delay=60, unknown_task=bool(unknown_task_count)) == [
            job
        ]
        row = claimer.row(job)
        assert (row["state"], row["attempt"], row["unknown_task_count"], row["errors"]) == (
            "scheduled",
            0,
            unknown_task_count,
            None,
        )


@pytest.mark.parametrize("hook", [True, False])
def test_a_failure_keeps_the_job_and_enqueues_its_hook(claimer: Claimer, *, hook: bool) -> None:
    (job,) = claimer.insert(1, "default", 3)
    claimer.claim(1)
    began = attempt(claimer, job)
    assert claimer.statements.fail(claimer.conn, TOKEN, job, error='{"type": "Last"}', hook=hook) == {job: "failed"}
    row = claimer.row(job)
    hooks = claimer.claim(10)
    named = {"hook": hooks[0].id} if hook else {}  # the failure names its hook
    assert (row["state"], row["attempt"], row["errors"], row["token"]) == (
        "failed",
        1,
        [{"type": "Last", **began, **named}],
        None,
    )
    assert row["failed_at"] is not None
    assert [(found.task, found.priority, found.is_hook, found.args) for found in hooks] == (
        [("noop", 3, True, f'{{"job": {job}}}')] if hook else []
    )


@pytest.mark.parametrize("hook", [True, False])
def test_a_job_that_fails_after_its_cancellation_was_requested_is_cancelled(claimer: Claimer, *, hook: bool) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    began = attempt(claimer, job)
    claimer.conn.execute("UPDATE qworker.job SET cancel_requested_at = clock_timestamp()")
    assert claimer.statements.fail(claimer.conn, TOKEN, job, error='{"type": "Last"}', hook=hook) == {job: "cancelled"}
    assert claimer.conn.execute("SELECT id, state::text, errors FROM qworker.jobs").fetchall() == [
        (job, "cancelled", [{"type": "Last", **began}])
    ], "and no hook is enqueued"


def test_the_newest_fifty_errors_are_kept(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    for number in range(60):
        claimer.conn.execute("UPDATE qworker.job SET state = 'available'")
        claimer.claim(1)
        claimer.statements.retry(claimer.conn, TOKEN, job, delay=0, error=json.dumps({"attempt": number}))
    assert [error["attempt"] for error in claimer.row(job)["errors"]] == list(range(10, 60))
