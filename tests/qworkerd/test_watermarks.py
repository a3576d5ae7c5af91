"""The protocol of docs/watermarks.md: no job that can be claimed stays below a low watermark.

A state machine runs it on a real server; the tests after it check one rule each.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Jsonb

from qworker.claims import ClaimedJob, Claims
from qworker.db.connection import connect
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworker.registry import NO_CTID, PREPARED, Heartbeat, NodeLease, PollResult, Registry
from qworkerd.scheduler.watermarks import scrub as scrub_module
from qworkerd.scheduler.watermarks import tracker as tracker_module
from qworkerd.scheduler.watermarks.releases import RELEASE_MISSED_AFTER
from qworkerd.scheduler.watermarks.scrub import EXPENSIVE_SCRUB, SCRUB_INTERVAL, SLICE_INITIAL, SLICE_MAX, Scrub
from qworkerd.scheduler.watermarks.settled import LINGERING_AFTER
from qworkerd.scheduler.watermarks.tracker import WatermarkTracker
from qworkerd.shared.claim import new_token
from qworkerd.shared.slots import Role, Slot, SlotTable
from qworkerd.shared.watermarks import Watermarks
from qworkerd.worker import cursors as cursors_module
from qworkerd.worker.cursors import Cursors
from tests.database import Database
from tests.qworkerd.clock import Clock

Connection = psycopg.Connection[tuple[Any, ...]]

QUEUES, PRIORITIES = ("a", "b"), (0, 5)
PRODUCERS, NODES, WORKERS = 3, 2, 2
#: Interval between two polls of a scheduler (seconds).
POLL_EVERY = 1.0

claims = Claims()
maintenance, recovery, registry = Maintenance(), Recovery(), Registry()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (tracker_module, scrub_module, cursors_module):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


class WorkerModel:
    """A worker: its cursors, and the claim it holds."""

    def __init__(self, watermarks: Watermarks, slot: Slot) -> None:
        self.slot = slot
        self.cursors = Cursors(watermarks, WORKERS)
        self.exhausted = True
        self.token = 0
        self.rows: list[ClaimedJob] = []


class NodeModel:
    """A node: its scheduler's tracker, and its workers."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.number = registry.register(
            conn, name="node", version="1", queues=QUEUES, worker_count=WORKERS, lease_seconds=30.0
        )
        *slots, self.scheduler = (table := SlotTable(WORKERS + 1)).slots
        self.watermarks = Watermarks(table, QUEUES)
        self.tracker = WatermarkTracker(self.watermarks)
        self.workers = [WorkerModel(self.watermarks, slot) for slot in slots]
        #: Seqs that this node has released and no heartbeat has announced; and seqs of available jobs that no poll of
        #: this node could know: released by others, or written by transactions that lingered.
        self.unannounced: set[int] = set()
        self.unknowable: set[int] = set()
        #: The latter as of the poll in progress, and the former that its heartbeat announces.
        self.covered: set[int] = set()
        self.announcing: set[int] = set()
        self.polling: Iterator[str] | None = None

    def steps(self) -> Iterator[str]:
        """Do what the scheduler does once a second; anything may happen between two steps."""
        for _ in range(2):
            (start, scrub), needs_writers = self.tracker.begin(), self.tracker.needs_writers
            released = self.tracker.released_seq
            yield "begun"
            ctid = registry.find_ctid(self.conn, self.number) or NO_CTID
            result = registry.poll(
                self.conn, self.number, queues=self.watermarks.queues, priorities=self.watermarks.priorities,
                watermarks=start, scrub=scrub, with_writers=needs_writers,
                heartbeat=Heartbeat(Jsonb({}), released, ctid),
            )  # fmt: skip
            yield "executed"
            if not self.tracker.advance(result):
                break

    def claim(self, worker: WorkerModel, limit: int) -> None:
        """Claim up to `limit` jobs for a worker that has none."""
        if worker.rows:
            return
        starts, sweep = worker.cursors.start(limit, idle=worker.exhausted)
        worker.token = new_token()
        worker.rows = claims.claim(
            self.conn, node=self.number, token=worker.token, queues=self.watermarks.queues,
            priorities=self.watermarks.priorities, cursors=starts, limit=limit,
        )  # fmt: skip
        worker.cursors.advance(worker.rows, limit, sweep=sweep, duration=0.0)
        worker.exhausted = len(worker.rows) < limit


class Producer:
    """A session that enqueues, with the seqs of its transaction."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.assigned: int | None = None
        self.seqs: set[int] = set()
        self.writing_since = 0.0


class Machine(RuleBasedStateMachine):
    """Producers whose transactions stay open, and nodes whose workers claim, finish, retry and release."""

    conn: Connection
    open: Callable[[], Connection]
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute("TRUNCATE qworker.job, qworker.node, qworker.idle_node, qworker.paused_node")
        self.conn.execute("SELECT setval('qworker.job_seq', 1, false)")
        self.producers = [Producer(self.open()) for _ in range(PRODUCERS)]
        self.nodes = [self.join() for _ in range(NODES)]

    @initialize(jobs=st.integers(0, 8), seconds=st.integers(0, 3))
    def start_with_running_jobs(self, jobs: int, seconds: int) -> None:
        """Begin with jobs that are running, and watermarks that have risen above them."""
        for number in range(jobs):
            self.insert(self.conn, QUEUES[number % 2], PRIORITIES[number // 2 % 2])
        for node in self.nodes:
            for worker in node.workers:
                node.claim(worker, 2)
        self.run_for(seconds)

    def join(self) -> NodeModel:
        return NodeModel(self.conn)

    def insert(self, conn: Connection, queue: str, priority: int, seq: int | None = None) -> int:
        ((seq,),) = conn.execute(
            "INSERT INTO qworker.job (task, queue, priority, seq) VALUES ('noop', %s, %s,"
            " coalesce(%s, nextval('qworker.job_seq'))) RETURNING seq",
            (queue, priority, seq),
        ).fetchall()
        return int(seq)

    def others(self, node: NodeModel) -> list[NodeModel]:
        return [other for other in self.nodes if other is not node]

    # Producers

    number = st.integers(0, PRODUCERS - 1)
    where = st.tuples(st.sampled_from(QUEUES), st.sampled_from(PRIORITIES))

    def write(self, number: int) -> Producer:
        """Return a producer whose transaction writes."""
        producer = self.producers[number]
        if not producer.writing_since:
            producer.writing_since = self.clock.now
        return producer

    @rule(number=number, where=where, jobs=st.integers(1, 3))
    def enqueue(self, number: int, where: tuple[str, int], jobs: int) -> None:
        producer = self.write(number)
        producer.seqs |= {self.insert(producer.conn, *where) for _ in range(jobs)}

    @rule(where=where)
    def enqueue_at_once(self, where: tuple[str, int]) -> None:
        self.insert(self.conn, *where)

    @rule(number=number)
    def draw(self, number: int) -> None:
        """Stop in the middle of an INSERT: the table is locked and the seq drawn, but there is no transaction id."""
        producer = self.write(number)
        if producer.assigned is None:
            producer.conn.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
            ((producer.assigned,),) = producer.conn.execute("SELECT nextval('qworker.job_seq')").fetchall()

    @rule(number=number, where=where)
    def insert_drawn(self, number: int, where: tuple[str, int]) -> None:
        producer = self.producers[number]
        if producer.assigned is not None:
            producer.seqs.add(self.insert(producer.conn, *where, producer.assigned))
            producer.assigned = None

    @rule(number=number, commit=st.booleans())
    def end(self, number: int, *, commit: bool) -> None:
        """End a transaction. If it has lingered, the next poll finds its jobs."""
        producer = self.producers[number]
        if commit:
            producer.conn.commit()
            if self.clock.now - producer.writing_since > LINGERING_AFTER:
                for node in self.nodes:
                    node.unknowable |= producer.seqs
        else:
            producer.conn.rollback()
        self.producers[number] = Producer(producer.conn)

    @rule(number=number, where=where, commit=st.booleans())
    def linger(self, number: int, where: tuple[str, int], *, commit: bool) -> None:
        """Keep a transaction open until no scheduler waits for it, while the workers have nothing left to do."""
        self.enqueue(number, where, 1)
        for node in self.nodes:
            for worker in node.workers:
                node.claim(worker, 1000)
        self.run_for(int(LINGERING_AFTER) + 3)
        self.end(number, commit=commit)

    @rule(number=number)
    def lock_a_job(self, number: int) -> None:
        """Lock a job: no sweep can claim it now, and every sweep can later."""
        self.producers[number].conn.execute(
            "SELECT FROM qworker.job WHERE state = 'available' ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED"
        )

    # Nodes

    which = st.integers(0, NODES - 1)
    one_worker = st.integers(0, WORKERS - 1)

    @rule(node_index=which, worker_index=one_worker, limit=st.sampled_from([1, 2, 8]))
    def claim(self, node_index: int, worker_index: int, limit: int) -> None:
        node = self.nodes[node_index]
        node.claim(node.workers[worker_index], limit)

    busy = precondition(lambda self: any(worker.rows for node in self.nodes for worker in node.workers))
    one = st.randoms(use_true_random=False)

    def some(self, chance: Random) -> tuple[NodeModel, WorkerModel]:
        return chance.choice([(node, worker) for node in self.nodes for worker in node.workers if worker.rows])

    @busy
    @rule(chance=one)
    def finish(self, chance: Random) -> None:
        _, worker = self.some(chance)
        claims.acknowledge(self.conn, worker.token, [row.id for row in worker.rows])
        worker.rows = []

    @busy
    @rule(chance=one, delay=st.sampled_from([0.0, 3600.0]))
    def retry(self, chance: Random, delay: float) -> None:
        _, worker = self.some(chance)
        for row in worker.rows:
            claims.retry(self.conn, worker.token, row.id, delay=delay, error="{}")
        worker.rows = []
        maintenance.promote(self.conn, 0.0)

    @busy
    @rule(chance=one, jobs=st.integers(1, 8), slot_reassigned=st.booleans())
    def release(self, chance: Random, jobs: int, *, slot_reassigned: bool) -> None:
        node, worker = self.some(chance)
        rows, worker.rows = worker.rows[:jobs], worker.rows[jobs:]
        claims.release(self.conn, worker.token, [row.id for row in rows])
        node.watermarks.report_release(worker.slot, min(row.seq for row in rows))
        node.unannounced |= {row.seq for row in rows}
        if slot_reassigned and not worker.rows:  # before any poll
            worker.slot.assign(Role.WORKER, 1, 0.0, 0.0)
            node.workers[node.workers.index(worker)] = WorkerModel(node.watermarks, worker.slot)

    @busy
    @rule(chance=one)
    def kill_a_worker(self, chance: Random) -> None:
        """Kill a worker; the scheduler releases its jobs."""
        node, worker = self.some(chance)
        recovery.release_claim(self.conn, node.number, worker.token)
        node.watermarks.report_release(node.scheduler)
        node.unannounced |= {row.seq for row in worker.rows}
        node.workers[node.workers.index(worker)] = WorkerModel(node.watermarks, worker.slot)

    @rule(node_index=which, worker_index=one_worker)
    def reconnect_a_worker(self, node_index: int, worker_index: int) -> None:
        node = self.nodes[node_index]
        node.workers[worker_index].cursors.reset()
        node.watermarks.report_release(node.workers[worker_index].slot)

    @rule(node_index=which)
    def reconnect_a_scheduler(self, node_index: int) -> None:
        """Reset the tracker; a poll in progress is lost with the connection."""
        node = self.nodes[node_index]
        node.polling = None
        node.covered.clear()
        node.tracker.reset()

    @rule(node_index=which)
    def leave(self, node_index: int) -> None:
        """Replace a node, as a deployment does: its jobs are released before its row is deleted."""
        node = self.nodes[node_index]
        for worker in node.workers:
            recovery.release_claim(self.conn, node.number, worker.token)
            node.unannounced |= {row.seq for row in worker.rows}
        registry.deregister(self.conn, node.number)
        for other in self.others(node):
            other.unknowable |= node.unannounced
        self.nodes[node_index] = self.join()

    @rule(node_index=which)
    def poll(self, node_index: int) -> None:
        """Poll, or finish the poll in progress."""
        while self.advances(self.nodes[node_index]):
            pass

    @rule(node_index=which)
    def poll_a_step(self, node_index: int) -> None:
        """Begin a poll, execute its statement, or process its result."""
        self.advances(self.nodes[node_index])

    def advances(self, node: NodeModel) -> bool:
        """Take one step of a poll; tell whether it goes on."""
        node.polling = node.polling or node.steps()
        match next(node.polling, "processed"):
            case "executed":
                node.covered = set(node.unknowable)
                node.unannounced -= node.announcing
                for other in self.others(node):
                    other.unknowable |= node.announcing
                return True
            case at:
                node.unknowable -= node.covered
                node.covered.clear()
                node.announcing = set(node.unannounced)
                node.polling = node.polling if at == "begun" else None
                return node.polling is not None

    @rule(seconds=st.sampled_from([RELEASE_MISSED_AFTER + 1.0, SCRUB_INTERVAL]))
    def pause(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.integers(1, 6))
    def run_for(self, seconds: int) -> None:
        """Let the schedulers poll in time."""
        for _ in range(seconds):
            self.clock.now += POLL_EVERY
            for node_index in range(NODES):
                self.poll(node_index)

    @invariant()
    def no_available_job_is_at_or_below_a_watermark(self) -> None:
        """Exclude what others have just released, or wrote long ago: the first poll that can know of it finds it."""
        waiting = self.conn.execute("SELECT queue, priority, seq FROM qworker.job WHERE state = 'available'").fetchall()
        for node in self.nodes:
            start = node.watermarks.scan_start()
            excluded = node.unknowable.union(*(other.unannounced for other in self.others(node)))
            for queue, priority, seq in waiting:
                assert seq > start[node.watermarks.index[queue, priority]] or seq in excluded

    @precondition(lambda self: not any(node.unknowable or node.unannounced for node in self.nodes))
    @rule(node_index=which)
    def sweep(self, node_index: int) -> None:
        """Let an idle worker sweep: it finds every job that is not locked."""
        for number in range(PRODUCERS):
            self.end(number, commit=False)
        node = self.nodes[node_index]
        worker = node.workers[0]
        claims.acknowledge(self.conn, worker.token, [row.id for row in worker.rows])
        worker.rows, worker.exhausted = [], True
        node.claim(worker, 1000)
        assert self.conn.execute("SELECT count(*) FROM qworker.job WHERE state = 'available'").fetchall() == [(0,)]

    def teardown(self) -> None:
        for producer in self.producers:
            producer.conn.rollback()
        try:
            self.finish_everything()
        finally:
            for producer in self.producers:
                producer.conn.close()

    def finish_everything(self) -> None:
        """Claim the rest: the watermarks rise to the last seq."""
        self.run_for(3)
        for node in self.nodes:
            for worker in node.workers:
                claims.acknowledge(self.conn, worker.token, [row.id for row in worker.rows])
                worker.rows, worker.exhausted = [], True
                node.claim(worker, 1000)
        self.run_for(6)
        ((last,),) = self.conn.execute("SELECT last_value - 1 + is_called::int FROM qworker.job_seq").fetchall()
        ((left,),) = self.conn.execute("SELECT count(*) FROM qworker.job WHERE state = 'available'").fetchall()
        assert left == 0
        for node in self.nodes:
            assert node.watermarks.scan_start() == [last] * len(node.watermarks.queues)


@pytest.mark.timeout(400)  # Hypothesis takes up to five minutes to shorten a failure
def test_no_available_job_is_at_or_below_a_watermark(database: Database, clock: Clock) -> None:
    class Bound(Machine):
        pass

    with connect(database.dsn, "test") as conn:
        Bound.conn, Bound.clock = conn, clock
        Bound.open = staticmethod(lambda: database.connect(autocommit=False))
        run_state_machine_as_test(
            Bound,
            settings=settings(
                max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


# The rules of the protocol, one at a time


class Polls:
    """A tracker that is given the results of polls."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        table = SlotTable(1)
        self.watermarks, self.slot = Watermarks(table, ["default"]), table.slots[0]
        self.tracker = WatermarkTracker(self.watermarks)
        #: The slice of the scrub in the last poll.
        self.slice = (0, 0)

    def result(self, last_seq: int = 10, writers: Sequence[str] = (), **values: Any) -> PollResult:
        defaults: dict[str, Any] = {
            "ctid": "(0,1)", "heartbeats": {}, "released_seq": None,
            "first_available": [None] * len(self.watermarks.queues),
            "last_seq": last_seq,
            "writers": list(writers), "due_in": None, "cancels": [], "stacks": [], "has_running": False,
            "dead_nodes": [], "expired": False, "paused": [], "node_paused": False, "operations": False, "followed": [],
            "at": 0.0, "duration": 0.0,
        }  # fmt: skip
        return PollResult(**defaults | values)

    def poll(self, last_seq: int = 10, writers: Sequence[str] = (), duration: float = 0.0, **values: Any) -> bool:
        """Poll a second later; tell whether the tracker requests another poll at once."""
        self.clock.now += POLL_EVERY
        _, self.slice = self.tracker.begin()
        self.clock.now += duration
        return self.tracker.advance(self.result(last_seq, writers, duration=duration, **values))

    @property
    def watermark(self) -> int:
        """Where a sweep starts: the same for every lane here."""
        (only,) = set(self.watermarks.scan_start())
        return only


@pytest.fixture
def polls(clock: Clock) -> Polls:
    polls = Polls(clock)
    polls.poll()
    polls.poll()
    assert polls.watermark == 10
    return polls


def test_watermarks_rise_when_the_writers_have_ended(clock: Clock) -> None:
    polls = Polls(clock)
    for writers in (["1/1"], ["1/1", "2/5"], ["2/5"]):
        polls.poll(10, writers)
        assert polls.watermark == 0
    polls.poll(10, ["2/6"])
    assert polls.watermark == 10


@pytest.fixture
def lingered(polls: Polls) -> Polls:
    """A transaction that began when 10 seqs were settled keeps writing; 15 were drawn then, and 20 later."""
    polls.poll(15, ["1/1"], at=7.0)
    for _ in range(3):
        polls.poll(15, ["1/1"])
        assert polls.watermark == 10
    polls.poll(20, ["1/1"])
    for _ in range(2):
        assert not polls.poll(20, ["1/1"])
    assert polls.watermark == 20
    return polls


def test_a_lingering_transaction_does_not_hold_back_the_watermarks(lingered: Polls) -> None:
    lingered.poll(30, ["1/1", "2/2"])
    lingered.poll(30, ["1/1", "2/2"])
    assert lingered.watermark == 20
    lingered.poll(30, ["1/1"])
    lingered.poll(30, ["1/1"])
    assert lingered.watermark == 30


def test_the_end_of_a_lingering_transaction_lowers_the_watermarks_and_polls_again(lingered: Polls) -> None:
    lingered.watermarks.swept = lingered.clock.now
    assert lingered.poll(20)
    assert lingered.watermark == 10
    assert lingered.tracker.settled_at == 0.0  # for claims as commit
    assert lingered.tracker.begin()[0] == [10] * 10
    assert not lingered.poll(20, first_available=[12] * 10)
    assert lingered.watermark == 11
    assert lingered.watermarks.swept == 0.0


def test_each_lingering_transaction_has_its_own_settled_seq(lingered: Polls) -> None:
    for _ in range(6):
        lingered.poll(30, ["1/1", "2/2"])
    assert lingered.watermark == 30
    assert lingered.poll(30, ["1/1"])
    assert lingered.watermark == 20
    lingered.poll(30, ["1/1"])
    assert lingered.watermark == 30
    assert lingered.poll(30)
    assert lingered.watermark == 10


def test_a_failed_poll_may_have_missed_the_end_of_a_lingering_transaction(lingered: Polls) -> None:
    lingered.tracker.begin()
    lingered.tracker.poll_failed()
    assert lingered.watermark == 10
    lingered.poll(20, ["1/1"])
    assert lingered.watermark == 20


def test_the_watermarks_fall_to_the_lowest_seq_of_all_transactions_that_have_ended(lingered: Polls) -> None:
    others = [f"2/{number}" for number in range(20)]  # a set has them in any order
    for _ in range(6):
        lingered.poll(30, ["1/1", *others])
    assert lingered.watermark == 30
    assert lingered.poll(30)
    assert lingered.watermark == 10


def test_a_lingering_transaction_that_is_prepared_is_waited_for(lingered: Polls) -> None:
    lingered.poll(20, [PREPARED])
    for _ in range(10):
        lingered.poll(20, [PREPARED])
        assert lingered.watermark == 10
    lingered.poll(20)
    lingered.poll(20)
    assert lingered.watermark == 20


def test_a_prepared_transaction_is_waited_for(clock: Clock) -> None:
    polls = Polls(clock)
    for writers in (["1/1"], [PREPARED], [PREPARED], [PREPARED]):
        polls.poll(10, writers)
        assert polls.watermark == 0
    polls.poll()
    polls.poll()
    assert polls.watermark == 10


def test_writers_are_not_listed_when_nothing_was_drawn(clock: Clock) -> None:
    polls, needs_writers = Polls(clock), []
    for last_seq in (10, 10, 10, 11, 11, 11):
        needs_writers.append(polls.tracker.needs_writers)
        polls.poll(last_seq)
    assert needs_writers == [True, False, False, False, True, False]


def test_a_watermark_stays_below_the_first_available_job(polls: Polls) -> None:
    polls.poll(20)
    polls.poll(20, first_available=[15] * 10)
    polls.poll(20, first_available=[15] * 10)
    assert polls.watermark == 14


def test_a_release_counts_until_a_poll_has_started_below_it(polls: Polls) -> None:
    polls.watermarks.report_release(polls.slot, 5)
    polls.watermarks.report_release(polls.slot, 7)
    assert polls.watermark == 4
    assert polls.tracker.begin()[0] == [4] * 10
    polls.watermarks.report_release(polls.slot, 3)  # too late for the poll in progress
    polls.tracker.advance(polls.result())
    assert polls.watermark == 2
    polls.poll()
    assert polls.watermark == 10


def test_a_release_outlives_its_worker(polls: Polls) -> None:
    """Its slot is assigned to another worker before a poll."""
    polls.watermarks.report_release(polls.slot, 5)
    polls.slot.assign(Role.WORKER, 1, 0.0, 0.0)
    assert polls.watermark == 4


def test_a_release_is_announced_for_some_seconds_after_the_first_heartbeat(polls: Polls) -> None:
    polls.watermarks.report_release(polls.slot, 5)
    polls.poll(ctid=None)
    polls.clock.now += 100
    announced = []
    for _ in range(10):
        polls.poll()
        announced.append(polls.tracker.released_seq)
    assert announced == [5] * 6 + [None] * 4


def test_a_release_while_a_poll_begins_is_announced(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    release_counts = Watermarks.release_counts

    def late(watermarks: Watermarks) -> list[int]:
        watermarks.report_release(polls.slot, 5)
        return release_counts(watermarks)

    monkeypatch.setattr(Watermarks, "release_counts", late)
    assert polls.tracker.begin()[0] == [4] * 10
    assert polls.tracker.released_seq == 5


def test_a_release_by_another_node_lowers_the_watermarks_and_polls_again(polls: Polls) -> None:
    assert polls.poll(released_seq=6)
    assert polls.watermark == 5
    assert not polls.poll(released_seq=6)
    assert polls.watermark == 5
    polls.poll()
    assert polls.watermark == 10


def test_a_node_that_is_gone_may_not_have_announced_its_releases(polls: Polls) -> None:
    polls.poll(heartbeats={7: NodeLease(1, 10.0)})
    assert polls.watermark == 10
    assert polls.poll(heartbeats={})
    assert polls.watermark == 0
    assert polls.tracker.begin()[0] == [0] * 10


@pytest.mark.parametrize("late", ["between polls", "in a poll"])
def test_after_some_seconds_without_a_poll_a_node_starts_again(polls: Polls, late: str) -> None:
    polls.poll()
    if late == "between polls":
        polls.clock.now += RELEASE_MISSED_AFTER
    assert polls.poll(duration=0.0 if late == "between polls" else RELEASE_MISSED_AFTER)
    assert polls.watermark == 0
    assert polls.tracker.begin()[0] == [0] * 10


def test_a_new_connection_may_lead_to_another_server(polls: Polls) -> None:
    polls.watermarks.report_release(polls.slot, 5)
    polls.tracker.reset()
    assert polls.watermark == 0
    assert polls.tracker.released_seq == 5
    assert polls.tracker.needs_writers


def test_an_expensive_first_poll_is_followed_by_one_from_the_watermarks(clock: Clock) -> None:
    polls = Polls(clock)
    assert polls.poll(duration=0.5)
    assert not polls.poll(duration=0.5)
    assert polls.watermark == 10


# The scrub


def test_a_round_scans_a_cheap_range_in_one_leap(clock: Clock) -> None:
    polls, slices = Polls(clock), []
    for number in range(100):
        polls.poll(50_000_000)
        if any(polls.slice):
            slices.append((number, polls.slice))
    assert slices == [(number, (0, 50_000_000)) for number in (29, 59, 89)]


def test_an_unannounced_release_is_found_and_lowers_the_watermark(polls: Polls) -> None:
    while not any(polls.slice):
        polls.poll()
    assert polls.watermark == 10
    for _ in range(int(SCRUB_INTERVAL)):
        polls.poll()
    polls.poll(first_available=[7] * 10)
    assert polls.watermark == 6


class Rounds:
    """A scrub below watermarks that do not change, in an index of which a part is dead."""

    def __init__(self, clock: Clock, top: int, dead: range) -> None:
        self.clock, self.top, self.dead = clock, top, dead
        self.scrub = Scrub()

    def poll(self) -> tuple[int, int]:
        self.clock.now += POLL_EVERY
        slice_from, slice_to = self.scrub.begin([0, self.top], free=True)
        self.scrub.advance(self.cost(slice_from, slice_to))
        return slice_from, slice_to

    def cost(self, slice_from: int, slice_to: int) -> float:
        return 0.0005 + 1e-6 * len(range(max(slice_from, self.dead.start), min(slice_to, self.dead.stop)))

    def round(self) -> list[tuple[int, int]]:
        """Return the slices of the next round, which cover every seq."""
        slices: list[tuple[int, int]] = []
        while not slices or slices[-1][1] < self.top:
            slices += [(beyond, to) for beyond, to in [self.poll()] if beyond < to]
        assert [beyond for beyond, _ in slices] == [0, *(to for _, to in slices[:-1])]
        return slices


DEAD = range(3_000_000, 4_000_000)


def test_no_poll_takes_long_for_dead_entries_below_the_watermarks(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    for _ in range(20):
        costs = sorted(rounds.cost(*piece) for piece in rounds.round())
        assert costs[-5] <= 2 * EXPENSIVE_SCRUB  # the first slices among the dead entries are as long as those before
        assert costs[-1] <= 1e-6 * SLICE_MAX + EXPENSIVE_SCRUB


def test_the_leap_is_as_long_as_the_cheap_part(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    leaps = [rounds.round()[0][1] for _ in range(20)]
    assert leaps[0] == SLICE_INITIAL
    assert leaps[1] > 300_000
    assert all(abs(leap - DEAD.start) <= SLICE_MAX for leap in leaps[-10:])


def test_the_range_of_a_cheap_first_poll_is_scanned_in_one_leap(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    rounds.scrub.mark_cheap(2_000_000)
    assert rounds.round()[:2] == [(0, 2_000_000), (2_000_000, 2_000_000 + SLICE_INITIAL)]


def test_an_expensive_leap_is_halved(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    rounds.scrub.mark_cheap(5_000_000)
    assert [rounds.round()[0][1] for _ in range(2)] == [5_000_000, 2_500_000]


def test_a_failed_poll_shortens_the_slice(clock: Clock) -> None:
    scrub, slices = Scrub(), []
    clock.now += SCRUB_INTERVAL
    for _ in range(5):
        slices.append(scrub.begin([1_000_000], free=True))
        scrub.poll_failed()
    assert slices == [(0, 4096), (0, 2048), (0, 1024), (0, 1024), (0, 1024)]


def test_a_poll_that_may_be_expensive_has_no_slice(clock: Clock) -> None:
    scrub = Scrub()
    clock.now += SCRUB_INTERVAL
    assert scrub.begin([1_000_000], free=False) == (0, 0)
    scrub.advance(1.0)
    assert scrub.begin([1_000_000], free=True) == (0, SLICE_INITIAL)
