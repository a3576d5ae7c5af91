"""What any scheduler may do for all: promote, expire, forget. And what one claims for its own node."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworker.registry import NO_CTID, PREPARED, Heartbeat, PollResult, Registry
from tests.database import Database
from tests.qworker.claimer import TOKEN, Claimer

registry, recovery, maintenance = Registry(), Recovery(), Maintenance()

NOW = datetime.now(UTC)


@pytest.fixture
def claimer(database: Database) -> Iterator[Claimer]:
    with Claimer(database) as claimer:
        yield claimer


def schedule(claimer: Claimer, *seconds: float) -> list[int]:
    """Make jobs that are due so many seconds from now."""
    rows = claimer.conn.execute(
        "INSERT INTO qworker.job (task, state, run_at) SELECT 'noop', 'scheduled', %s + make_interval(secs => s)"
        "  FROM unnest(%s::float8[]) AS s RETURNING id",
        (NOW, list(seconds)),
    )
    return [row[0] for row in rows]


def beat(claimer: Claimer, node: int, returned: int | None = None) -> Heartbeat:
    """Return what a node says that knows where its row stands."""
    return Heartbeat(Jsonb({}), returned, Registry().find_ctid(claimer.conn, node) or NO_CTID)


def see(claimer: Claimer, node: int, queue: str = "default", floor: int = 0, **options: Any) -> PollResult:
    return Registry().poll(
        claimer.conn, node, queues=[queue] * 10, priorities=list(range(10)), watermarks=[floor] * 10, **options
    )


def register(claimer: Claimer) -> int:
    return registry.register(claimer.conn, name="here:1", version="1", queues=["default"], processes=2, lease=30.0)


# Promotion


def test_due_jobs_become_available_and_the_others_wait(claimer: Claimer) -> None:
    due, future, overdue = schedule(claimer, -1, 5, -3600)
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp()) == ["default"] * 2
    assert {job.id for job in claimer.claim(10)} == {due, overdue}
    assert claimer.row(future)["state"] == "scheduled"
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp() + 5) == ["default"]


def test_of_more_than_one_statement_takes_those_that_are_due_first_go_first(claimer: Claimer) -> None:
    later = schedule(claimer, *([-1] * 1000))
    (first,) = schedule(claimer, -2)
    maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())
    assert claimer.row(first)["state"] == "available"
    left = claimer.conn.execute("SELECT id FROM qworker.job WHERE state = 'scheduled'").fetchall()
    assert len(left) == 1
    assert left[0][0] in later


def test_a_promoted_job_takes_its_place_behind_those_that_wait(claimer: Claimer) -> None:
    (late,) = schedule(claimer, -1)
    waiting = claimer.insert(2)
    maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())
    assert [job.id for job in claimer.claim(10)] == [*waiting, late]


def test_one_statement_promotes_a_thousand(claimer: Claimer) -> None:
    schedule(claimer, *(-number / 1000 for number in range(1, 1501)))
    assert len(maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())) == 1000
    assert len(maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp())) == 500
    assert maintenance.promote(claimer.conn, 0.0, at=NOW.timestamp()) == []


def test_a_walk_may_begin_behind_the_clock(claimer: Claimer) -> None:
    old, new = schedule(claimer, -120, -1)
    maintenance.promote(claimer.conn, NOW.timestamp() - 60, at=NOW.timestamp())
    assert (claimer.row(old)["state"], claimer.row(new)["state"]) == ("scheduled", "available")


def test_schedulers_promote_without_waiting_for_each_other(database: Database, claimer: Claimer) -> None:
    schedule(claimer, -2, -1)
    with Claimer(database) as other, other.conn.transaction(force_rollback=True):
        assert len(maintenance.promote(other.conn, 0.0)) == 2
        assert maintenance.promote(claimer.conn, 0.0) == []
    assert len(maintenance.promote(claimer.conn, 0.0)) == 2


# A look


def test_a_look_shows_what_there_is_to_do(claimer: Claimer) -> None:
    here, there = register(claimer), register(claimer)
    sight = see(claimer, here)
    assert (sight.heartbeats, sight.waiting, sight.due_in, sight.cancels) == ({there: (0, 30.0)}, False, None, [])
    schedule(claimer, 60)
    running = claimer.insert()
    claimer.claim(1)
    claimer.conn.execute(
        "UPDATE qworker.job SET node = %s, cancel_requested_at = now() WHERE state = 'running'", (here,)
    )
    claimer.insert(1)
    claimer.insert(1, "elsewhere")
    sight = see(claimer, here)
    assert (sight.waiting, sight.cancels) == (True, running)
    assert sight.due_in == pytest.approx(NOW.timestamp() + 60 - sight.at, abs=5)
    assert not see(claimer, here, "nothing").waiting
    assert 0.0 < sight.took < 5.0


@pytest.mark.parametrize(
    ("slice_from", "slice_to", "found"), [(4, 5, 5), (3, 9, 5), (5, 9, None), (0, 4, None), (5, 5, None)]
)
def test_a_look_sees_the_places_of_its_slice_beside_those_behind_the_floor(
    claimer: Claimer, slice_from: int, slice_to: int, found: int | None
) -> None:
    here = register(claimer)
    (low,), (high,) = claimer.insert(), claimer.insert()
    claimer.conn.execute("UPDATE qworker.job SET seq = CASE id WHEN %s THEN 5 ELSE 25 END", (low,))
    ((priority,),) = claimer.conn.execute("SELECT priority FROM qworker.job WHERE id = %s", (high,)).fetchall()
    assert see(claimer, here, floor=20, scrub=(slice_from, slice_to)).first_available[priority] == (found or 25)
    assert see(claimer, here, floor=30, scrub=(slice_from, slice_to)).first_available[priority] == found


def test_a_look_begins_at_the_floor_and_shows_the_first_job_of_each_priority(claimer: Claimer) -> None:
    here = register(claimer)
    places = [claimer.row(job)["seq"] for job in claimer.insert(3, priority=5) + claimer.insert(2, priority=9)]
    assert see(claimer, here).first_available == [None] * 5 + [places[0]] + [None] * 3 + [places[3]]
    assert see(claimer, here, floor=places[1]).first_available == [None] * 5 + [places[2]] + [None] * 3 + [places[3]]
    sight = see(claimer, here, floor=places[4])
    assert (sight.first_available, sight.last_seq, sight.waiting) == ([None] * 10, places[4], False)


def test_before_the_first_job_no_place_is_drawn(claimer: Claimer) -> None:
    here = register(claimer)
    claimer.conn.execute("SELECT setval('qworker.job_seq', 1, false)")
    assert see(claimer, here).last_seq == 0
    claimer.insert()
    assert see(claimer, here).last_seq == 1


def test_a_look_shows_who_may_have_drawn_a_place_when_asked(claimer: Claimer, database: Database) -> None:
    here = register(claimer)
    with database.connect(autocommit=False) as writer, database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM qworker.job FOR UPDATE")
        assert see(claimer, here, with_writers=True).writers == []
        writer.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
        (one,) = see(claimer, here, with_writers=True).writers
        assert one != PREPARED
        assert see(claimer, here).writers == []
        writer.commit()
        writer.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
        assert see(claimer, here, with_writers=True).writers not in ([], [one])


def test_what_others_have_handed_back_is_told_with_their_beats(claimer: Claimer) -> None:
    here, there, third = (register(claimer) for _ in range(3))
    assert see(claimer, here).released_seq is None
    see(claimer, there, heartbeat=beat(claimer, there, 9))
    registry.renew(claimer.conn, third, beat(claimer, third, 7))
    assert [see(claimer, node).released_seq for node in (here, there, third)] == [7, 7, 9]
    registry.renew(claimer.conn, third, beat(claimer, third))
    assert see(claimer, here).released_seq == 9


@pytest.mark.parametrize(
    ("state", "unfinished"),
    [
        ("state = 'available'", True),
        ("state = 'running'", True),
        ("state = 'scheduled', run_at = now(), attempt = 1", True),
        ("state = 'scheduled', run_at = now()", False),
        ("state = 'failed'", False),
        ("queue = 'elsewhere'", False),
    ],
)
def test_a_drain_waits_for_what_has_begun(claimer: Claimer, state: str, *, unfinished: bool) -> None:
    claimer.insert()
    claimer.conn.execute(f"UPDATE qworker.job SET {state}".encode())  # noqa: S608
    assert registry.unfinished(claimer.conn, ["default"]) is unfinished


def test_a_lease_is_prolonged_until_others_declare_the_node_dead(claimer: Claimer) -> None:
    number = register(claimer)
    assert registry.renew(claimer.conn, number, beat(claimer, number)) == registry.find_ctid(claimer.conn, number)
    assert not recovery.delete_dead_node(claimer.conn, number, 0)  # the beat has moved
    sight = see(claimer, number, heartbeat=beat(claimer, number))
    assert sight.renewed
    assert sight.ctid == registry.find_ctid(claimer.conn, number)
    assert not see(claimer, number).renewed
    assert not recovery.delete_dead_node(claimer.conn, number, 1)
    last = beat(claimer, number)
    assert recovery.delete_dead_node(claimer.conn, number, 2)
    assert registry.renew(claimer.conn, number, last) is None
    assert not see(claimer, number, heartbeat=last).renewed
    assert registry.find_ctid(claimer.conn, number) is None


def test_a_lease_is_not_prolonged_where_the_row_does_not_stand(claimer: Claimer) -> None:
    here, there = register(claimer), register(claimer)
    old = beat(claimer, here)
    assert registry.renew(claimer.conn, here, old) not in (None, old.ctid)
    for wrong in (Heartbeat(Jsonb({})), old, beat(claimer, there)):
        assert registry.renew(claimer.conn, here, wrong) is None
        assert not see(claimer, here, heartbeat=wrong).renewed


def test_a_look_tells_of_claims_that_are_out_and_of_what_is_rare_when_asked(claimer: Claimer) -> None:
    here = register(claimer)
    claimer.insert()
    sight = see(claimer, here, sweep=True)
    assert (sight.has_running, sight.dead_nodes, sight.expired) == (False, [], False)
    claimer.conn.execute(b"UPDATE qworker.job SET state = 'running', node = %s, claimed_at = now()", (here,))
    assert see(claimer, here).has_running
    assert not see(claimer, here, since=sight.at + 60).has_running
    claimer.conn.execute(b"UPDATE qworker.job SET node = %s", (here + 1,))
    sight = see(claimer, here, sweep=True)
    assert (sight.has_running, sight.dead_nodes) == (False, [here + 1])
    assert see(claimer, here).dead_nodes == []


@pytest.mark.parametrize("column", ["expires_at", "cancel_requested_at"])
def test_a_sweep_sees_what_is_to_be_ended(claimer: Claimer, column: str) -> None:
    here = register(claimer)
    claimer.insert()
    claimer.conn.execute(f"UPDATE qworker.job SET {column} = now()".encode())  # noqa: S608
    assert see(claimer, here, sweep=True).expired
    assert not see(claimer, here).expired


def test_the_jobs_of_a_lost_node_go_back_uncounted_until_they_were_lost_too_often(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    for node_losses in (1, 2, 3):
        claimer.claim(1)
        assert len(recovery.rescue(claimer.conn, 1, 3)) == 1
        row = claimer.row(job)
        assert (row["state"], row["attempt"], row["node_losses"], row["token"]) == (
            "available" if node_losses < 3 else "failed", 0, node_losses, None,
        )  # fmt: skip
        assert row["errors"][-1]["cause"] == "node-lost"


@pytest.mark.parametrize("hooks", [["noop"], []])
@pytest.mark.parametrize("own", [True, False])
def test_a_job_that_was_lost_too_often_fails_as_others_do(claimer: Claimer, hooks: list[str], *, own: bool) -> None:
    """Its key is free, or all that is enqueued under it would be a duplicate of a job that nobody runs."""
    (job,) = claimer.insert()
    claimer.conn.execute("UPDATE qworker.job SET holds_key = true")
    claimer.conn.execute("INSERT INTO qworker.unique_key VALUES ('noop', 'k', %s)", (job,))
    for node_losses in (1, 2):
        claimer.claim(1)
        assert claimer.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchall() == [(1,)]
        if own:
            assert len(recovery.record_node_loss(claimer.conn, TOKEN, job, 2, '{"cause": "lease"}', hooks)) == 1
        else:
            assert len(recovery.rescue(claimer.conn, 1, 2, hooks)) == 1
        assert claimer.row(job)["node_losses"] == node_losses
    assert (claimer.row(job)["state"], claimer.row(job)["holds_key"]) == ("failed", False)
    assert claimer.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchall() == [(0,)]
    found = claimer.claim(10)
    assert [(hook.task, hook.is_hook, hook.args) for hook in found] == [("noop", True, f'{{"job": {job}}}')] * len(
        hooks
    )


@pytest.mark.parametrize("errors", ['{"oops": 1}', "null", "7", '"text"'])
def test_errors_that_somebody_has_spoilt_do_not_keep_a_nodes_jobs_from_being_freed(
    claimer: Claimer, errors: str
) -> None:
    job, other = claimer.insert(2)
    claimer.conn.execute("UPDATE qworker.job SET errors = %s::jsonb WHERE id = %s", (errors, job))
    claimer.claim(2)
    assert len(recovery.rescue(claimer.conn, 1, 10)) == 2
    assert [claimer.row(found)["errors"][-1]["type"] for found in (job, other)] == ["NodeLost"] * 2


# Retention


def test_days_that_are_over_are_emptied_and_the_others_kept(claimer: Claimer) -> None:
    ages = (0, 1, 6, 7, 8, 9, 20, 30)
    for age in ages:
        claimer.conn.execute(
            "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority,"
            " crashes, node_losses, is_hook, queue, task, args)"
            " SELECT %(age)s, t, t, 'completed', 1, qworker.history_day(t),"
            " 5, 0, 0, false,"
            " 'default', 'noop', '{}' FROM (SELECT clock_timestamp() - make_interval(days => %(age)s)) AS x (t)",
            {"age": age},
        )
    stale = maintenance.expired_days(claimer.conn, 7)
    assert len(stale) == len(set(stale)) == 23
    assert sum(maintenance.truncate_history_day(claimer.conn, day) for day in stale) == 4
    kept = claimer.conn.execute("SELECT id FROM qworker.job_history ORDER BY id").fetchall()
    assert [age for (age,) in kept] == [0, 1, 6, 7]


@pytest.mark.parametrize("keep", [1, 29])
def test_today_and_tomorrow_are_never_among_the_days_that_are_over(claimer: Claimer, keep: int) -> None:
    stale = maintenance.expired_days(claimer.conn, keep)
    assert stale, "a ring of which nothing is ever emptied grows for ever"
    for days in (0, -1, *range(1, keep + 1)):
        day = claimer.conn.execute(
            "SELECT qworker.history_day(clock_timestamp() - make_interval(days => %s))", (days,)
        ).fetchall()[0][0]
        assert day not in stale


def test_a_day_that_somebody_reads_is_left_at_once(claimer: Claimer, database: Database) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    claimer.statements.acknowledge(claimer.conn, TOKEN, [job])
    today = claimer.conn.execute("SELECT qworker.history_day(clock_timestamp())").fetchall()[0][0]
    claimer.conn.execute("SET lock_timeout = '50ms'")
    with database.connect(autocommit=False) as reader:
        reader.execute("LOCK TABLE qworker.job_history IN ACCESS SHARE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            maintenance.truncate_history_day(claimer.conn, today)
    assert maintenance.truncate_history_day(claimer.conn, today)
    assert not maintenance.truncate_history_day(claimer.conn, today)


def test_failed_jobs_are_put_away_when_they_are_old(claimer: Claimer) -> None:
    old, new = claimer.insert(2)
    for job, age in ((old, timedelta(days=31)), (new, timedelta(days=29))):
        claimer.conn.execute("UPDATE qworker.job SET state = 'failed', failed_at = %s WHERE id = %s", (NOW - age, job))
    assert len(maintenance.discard_failed(claimer.conn, 30 * 86_400)) == 1
    states = claimer.conn.execute("SELECT id, state FROM qworker.jobs ORDER BY id").fetchall()
    assert states == [(old, "discarded"), (new, "failed")]


def test_jobs_that_nobody_started_in_time_end(claimer: Claimer) -> None:
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


def test_jobs_that_were_cancelled_while_they_ran_and_then_handed_back_end(claimer: Claimer) -> None:
    running, returned, other = claimer.insert(3)
    claimer.claim(1)
    claimer.conn.execute(
        "UPDATE qworker.job SET cancel_requested_at = clock_timestamp(), attempt = 1 WHERE id = ANY (%s)",
        ([running, returned],),
    )
    assert len(maintenance.expire(claimer.conn)) == 1
    rows = claimer.conn.execute("SELECT id, state, errors -> 0 ->> 'type' FROM qworker.jobs ORDER BY id").fetchall()
    assert rows == [(running, "running", None), (returned, "cancelled", "Cancelled"), (other, "available", None)]
