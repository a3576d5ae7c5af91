"""A node's statements: registration, the lease, and the poll."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from qworker.options import PRIORITIES
from qworker.recovery import Recovery
from qworker.registry import NO_CTID, PREPARED, Heartbeat, PollResult, Registry
from tests.database import Database
from tests.qworker.claimer import NOW, Claimer

registry, recovery = Registry(), Recovery()


def register(claimer: Claimer) -> int:
    return registry.register(
        claimer.conn, name="here:1", version="1", queues=["default"], worker_count=2, lease_seconds=30.0
    )


def heartbeat(claimer: Claimer, node: int, released_seq: int | None = None) -> Heartbeat:
    """Return the heartbeat of a node that knows the ctid of its row."""
    return Heartbeat(Jsonb({}), released_seq, registry.find_ctid(claimer.conn, node) or NO_CTID)


def poll(claimer: Claimer, node: int, queue: str = "default", watermark: int = 0, **options: Any) -> PollResult:
    return registry.poll(
        claimer.conn, node, queues=[queue] * 10, priorities=list(range(10)), watermarks=[watermark] * 10, **options
    )


def test_a_poll_returns_what_there_is_to_do(claimer: Claimer) -> None:
    here, there = register(claimer), register(claimer)
    found = poll(claimer, here)
    assert (found.heartbeats, found.waiting(), found.due_in, found.cancels) == ({there: (0, 30.0)}, False, None, [])
    claimer.schedule(60)
    running = claimer.insert()
    claimer.claim(1)
    claimer.conn.execute(
        "UPDATE qworker.job SET node = %s, cancel_requested_at = now() WHERE state = 'running'", (here,)
    )
    claimer.insert(1)
    claimer.insert(1, "elsewhere")
    found = poll(claimer, here)
    assert (found.waiting(), found.cancels) == (True, running)
    assert found.due_in == pytest.approx(NOW.timestamp() + 60 - found.at, abs=5)
    assert not poll(claimer, here, "nothing").waiting()
    assert 0.0 < found.duration < 5.0


@pytest.mark.parametrize(
    ("scrub_from", "scrub_to", "scrubbed"), [(4, 5, 5), (3, 9, 5), (5, 9, None), (0, 4, None), (5, 5, None)]
)
def test_a_poll_finds_jobs_of_its_scrub_range_and_jobs_after_the_watermark(
    claimer: Claimer, scrub_from: int, scrub_to: int, scrubbed: int | None
) -> None:
    here = register(claimer)
    (low,), (high,) = claimer.insert(), claimer.insert()
    claimer.conn.execute("UPDATE qworker.job SET seq = CASE id WHEN %s THEN 5 ELSE 25 END", (low,))
    ((priority,),) = claimer.conn.execute("SELECT priority FROM qworker.job WHERE id = %s", (high,)).fetchall()
    assert poll(claimer, here, watermark=20, scrub=(scrub_from, scrub_to)).first_available[priority] == (scrubbed or 25)
    assert poll(claimer, here, watermark=30, scrub=(scrub_from, scrub_to)).first_available[priority] == scrubbed


def test_a_poll_returns_the_first_job_of_each_priority_after_the_watermark(claimer: Claimer) -> None:
    here = register(claimer)
    seqs = [claimer.row(job)["seq"] for job in claimer.insert(3, priority=5) + claimer.insert(2, priority=9)]
    assert poll(claimer, here).first_available == [None] * 5 + [seqs[0]] + [None] * 3 + [seqs[3]]
    assert poll(claimer, here, watermark=seqs[1]).first_available == [None] * 5 + [seqs[2]] + [None] * 3 + [seqs[3]]
    found = poll(claimer, here, watermark=seqs[4])
    assert (found.first_available, found.last_seq, found.waiting()) == ([None] * 10, seqs[4], False)


def test_before_the_first_job_no_seq_is_assigned(claimer: Claimer) -> None:
    here = register(claimer)
    claimer.conn.execute("SELECT setval('qworker.job_seq', 1, false)")
    assert poll(claimer, here).last_seq == 0
    claimer.insert()
    assert poll(claimer, here).last_seq == 1


def test_a_poll_returns_the_transactions_that_may_have_a_seq_if_requested(claimer: Claimer, database: Database) -> None:
    here = register(claimer)
    with database.connect(autocommit=False) as writer, database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM qworker.job FOR UPDATE")
        assert poll(claimer, here, with_writers=True).writers == []
        writer.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
        (one,) = poll(claimer, here, with_writers=True).writers
        assert one != PREPARED
        assert poll(claimer, here).writers == []
        writer.commit()
        writer.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
        assert poll(claimer, here, with_writers=True).writers not in ([], [one])


def test_a_poll_returns_the_lowest_seq_that_other_nodes_have_released(claimer: Claimer) -> None:
    here, there, third = (register(claimer) for _ in range(3))
    assert poll(claimer, here).released_seq is None
    poll(claimer, there, heartbeat=heartbeat(claimer, there, 9))
    registry.renew(claimer.conn, third, heartbeat(claimer, third, 7))
    assert [poll(claimer, node).released_seq for node in (here, there, third)] == [7, 7, 9]
    registry.renew(claimer.conn, third, heartbeat(claimer, third))
    assert poll(claimer, here).released_seq == 9


@pytest.mark.parametrize(
    ("state", "unfinished"),
    [
        ("state = 'available'", True),
        ("state = 'running'", True),
        ("state = 'scheduled', run_at = now(), attempt = 1", True),
        ("state = 'scheduled', run_at = now()", False),
        ("state = 'failed'", False),
        ("queue = 'elsewhere'", False),
        ("priority = 0", True),
        ("priority = 9", True),
        ("priority = 10", False),
        ("priority = -1", False),
        ("state = 'running', priority = 10", True),
        ("state = 'scheduled', run_at = now(), attempt = 1, priority = 10", False),
    ],
)
def test_only_jobs_that_have_begun_or_could_begin_are_unfinished(
    claimer: Claimer, state: str, *, unfinished: bool
) -> None:
    claimer.insert()
    claimer.conn.execute(f"UPDATE qworker.job SET {state}".encode())  # noqa: S608
    assert registry.unfinished(claimer.conn, ["default"], PRIORITIES) is unfinished


def test_a_lease_is_renewed_until_the_node_is_declared_dead(claimer: Claimer) -> None:
    number = register(claimer)
    assert registry.renew(claimer.conn, number, heartbeat(claimer, number)) == registry.find_ctid(claimer.conn, number)
    assert not recovery.delete_dead_node(claimer.conn, number, 0)  # it has renewed meanwhile
    found = poll(claimer, number, heartbeat=heartbeat(claimer, number))
    assert found.renewed
    assert found.ctid == registry.find_ctid(claimer.conn, number)
    assert not poll(claimer, number).renewed
    assert not recovery.delete_dead_node(claimer.conn, number, 1)
    last = heartbeat(claimer, number)
    assert recovery.delete_dead_node(claimer.conn, number, 2)
    assert registry.renew(claimer.conn, number, last) is None
    assert not poll(claimer, number, heartbeat=last).renewed
    assert registry.find_ctid(claimer.conn, number) is None


def test_a_lease_is_not_renewed_at_a_ctid_that_is_not_the_nodes(claimer: Claimer) -> None:
    here, there = register(claimer), register(claimer)
    old = heartbeat(claimer, here)
    assert registry.renew(claimer.conn, here, old) not in (None, old.ctid)
    for wrong in (Heartbeat(Jsonb({})), old, heartbeat(claimer, there)):
        assert registry.renew(claimer.conn, here, wrong) is None
        assert not poll(claimer, here, heartbeat=wrong).renewed


def test_a_poll_returns_running_jobs_and_those_of_dead_nodes_if_requested(claimer: Claimer) -> None:
    here = register(claimer)
    claimer.insert()
    found = poll(claimer, here, thorough=True)
    assert (found.has_running, found.dead_nodes, found.expired) == (False, [], False)
    claimer.conn.execute(b"UPDATE qworker.job SET state = 'running', node = %s, claimed_at = now()", (here,))
    assert poll(claimer, here).has_running
    assert not poll(claimer, here, since=found.at + 60).has_running
    claimer.conn.execute(b"UPDATE qworker.job SET node = %s", (here + 1,))
    found = poll(claimer, here, thorough=True)
    assert (found.has_running, found.dead_nodes) == (False, [here + 1])
    assert poll(claimer, here).dead_nodes == []


@pytest.mark.parametrize("column", ["expires_at", "cancel_requested_at"])
def test_a_thorough_poll_finds_jobs_to_be_ended(claimer: Claimer, column: str) -> None:
    here = register(claimer)
    claimer.insert()
    claimer.conn.execute(f"UPDATE qworker.job SET {column} = now()".encode())  # noqa: S608
    assert poll(claimer, here, thorough=True).expired
    assert not poll(claimer, here).expired
