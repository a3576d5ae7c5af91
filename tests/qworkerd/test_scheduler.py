"""The scheduler's rounds: what goes wrong in one costs neither the lease nor the rest of the round."""

import os
from collections.abc import Iterator
from math import inf
from time import monotonic, time
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.registry import Registry
from qworker.timezones import timezone_version
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.scheduler import notifications, reconciliation, retention
from qworkerd.scheduler.lease import RENEW_INTERVAL
from qworkerd.scheduler.loop import Scheduler
from qworkerd.scheduler.maintenance import MORE_INTERVAL
from qworkerd.scheduler.poller import NO_RESULT, OVERDUE_POLL_INTERVAL
from qworkerd.scheduler.watermarks import settled
from qworkerd.shared.claim import Status, new_token
from qworkerd.shared.header import Header, boottime
from qworkerd.shared.slots import Phase, Role, Slot, SlotState
from qworkerd.shared.wakeup import WakeupPipe
from tests.database import Database
from tests.qworkerd.test_wakeup import rings
from tests.waiting import until


class Harness:
    """A scheduler that goes round when it is told to, and a worker's slot."""

    def __init__(self, database: Database) -> None:
        self.conn = connect(database.dsn, "test")
        self.node = make_node(App(), Settings(dsn=database.dsn, processes=1, lease_timeout=30.0))
        self.node.table.header.supervisor_seen_at = inf  # nobody supervises
        own, self.slot = self.node.table.slots[:2]
        own.assign(Role.SCHEDULER, 0, 0.0, 0.0)
        self.scheduler = Scheduler(self.node, own)
        self.round()

    def round(self) -> None:
        """Go round once, with everything due."""
        database = self.scheduler.connection.get()
        assert database is not None
        self.scheduler.lease.clock.hasten()
        self.scheduler.poller.clock.hasten()
        self.scheduler.tick(database)

    def insert(self, columns: str = "task", values: str = "'noop'") -> int:
        row = self.conn.execute(
            f"INSERT INTO qworker.job ({columns}) VALUES ({values}) RETURNING id".encode()  # noqa: S608
        ).fetchone()
        assert row is not None
        return int(row[0])

    def run(self) -> int:
        """Make a job, and have the worker run it; return its id."""
        job = self.insert()
        self.slot.assign(Role.WORKER, 1, 0.0, 0.0)
        claim = self.slot.claims[0]
        claim.open(new_token())
        Claims().claim(self.conn, node=self.node.table.header.node, token=claim.token, queues=["default"],
                       priorities=[5], cursors=[0], limit=1)  # fmt: skip
        claim.fill([job], [0], [1])
        claim.statuses[0] = Status.RUNNING
        return job

    def state(self, job: int) -> str:
        row = self.conn.execute("SELECT state FROM qworker.jobs WHERE id = %s", (job,)).fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def harness(database: Database) -> Iterator[Harness]:
    harness = Harness(database)
    yield harness
    harness.scheduler.connection.drop()
    harness.conn.close()


def rung(bell: WakeupPipe) -> bool:
    """Tell whether a bell rings, and silence it."""
    rang = rings(bell)
    bell.clear()
    return rang


def test_a_dead_slot_that_cannot_be_settled_holds_up_nothing_else(harness: Harness) -> None:
    job = harness.run()
    harness.slot.mark_dead("signal:SEGV")
    due = harness.insert("task, state, run_at", "'noop', 'scheduled', now()")
    for statement in (
        "CREATE FUNCTION choke() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        f"CREATE TRIGGER t BEFORE UPDATE ON qworker.job FOR EACH ROW WHEN (OLD.id = {job}) EXECUTE FUNCTION choke()",
    ):
        harness.conn.execute(statement.encode())
    try:
        harness.round()
        assert (harness.state(due), harness.state(job)) == ("available", "running")
        assert harness.slot.words[Slot.STATE] == SlotState.DEAD
    finally:
        harness.conn.execute("DROP FUNCTION choke() CASCADE")
    harness.round()
    assert harness.state(job) == "available"
    assert harness.slot.words[Slot.STATE] == SlotState.FREE


def test_a_duty_that_breaks_does_not_end_the_round(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    due = harness.insert("task, state, run_at", "'noop', 'scheduled', now()")
    monkeypatch.setattr(harness.scheduler.schedules, "due_at", 0.0)
    monkeypatch.setattr(harness.scheduler.schedules, "enqueue", lambda _: 1 / 0)
    harness.round()
    assert harness.state(due) == "available"


def test_a_notification_that_comes_during_a_statement_is_heard_in_the_same_round(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(database: Any, *, renew: bool = False) -> None:
        rung(harness.node.worker_wakeup)
        harness.conn.execute("NOTIFY qworker, 'default'")
        database.execute("SELECT 1")

    monkeypatch.setattr(harness.scheduler, "poll", look)
    harness.round()
    assert rung(harness.node.worker_wakeup)


def test_a_subscription_that_fails_alone_is_tried_again_and_the_node_awaits_no_notification_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    def refuse(*_: Any) -> None:
        nonlocal refused
        refused += 1
        raise psycopg.errors.LockNotAvailable

    monkeypatch.setattr(notifications, "SUBSCRIPTION_RETRY", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(Registry, "listen", refuse)
        harness = Harness(database)
        harness.slot.assign(Role.WORKER, 1, 0.0, 0.0)
        harness.slot.enter(Phase.IDLE, inf)
        harness.round()
        assert refused == 2
        assert harness.scheduler.lease.held
        assert harness.conn.execute("SELECT count(*) FROM qworker.idle_node").fetchone() == (0,)
    harness.round()
    assert harness.conn.execute("SELECT count(*) FROM qworker.idle_node").fetchone() == (1,)
    own = harness.scheduler.connection.get()
    assert own is not None
    assert own.execute("SELECT pg_listening_channels()").fetchall() == [("qworker",)]
    harness.scheduler.connection.drop()
    harness.conn.close()


def test_a_due_job_that_somebody_has_locked_is_not_looked_at_without_end(harness: Harness, database: Database) -> None:
    harness.insert("task, state, run_at", "'noop', 'scheduled', now()")
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM qworker.job FOR UPDATE")
        begun = monotonic()
        harness.round()
        assert harness.scheduler.poller.clock.due >= begun + OVERDUE_POLL_INTERVAL
    harness.round()
    assert harness.conn.execute("SELECT state FROM qworker.job").fetchall() == [("available",)]


def test_a_node_has_its_lease_before_its_number(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with a number and without a lease has lost it: the supervisor would kill its workers."""
    node: Any = vars(Header)["node"]
    leases = []

    def register(header: Header, number: int) -> None:
        leases.append(header.lease_until - boottime())
        node.__set__(header, number)

    monkeypatch.setattr(Header, "node", property(node.__get__, register), raising=False)
    harness = Harness(database)
    harness.scheduler.connection.drop()
    harness.conn.close()
    assert leases
    assert leases[0] > 20


def test_the_worker_of_a_cancelled_job_may_be_dead(harness: Harness) -> None:
    job = harness.run()
    harness.conn.execute("UPDATE qworker.job SET cancel_requested_at = now() WHERE id = %s", (job,))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    harness.slot.words[Slot.PID] = pid
    harness.round()
    assert harness.slot.words[Slot.CANCEL] == job
    until(lambda: harness.scheduler.poller.result.cancels == [job])


def test_a_look_that_cannot_be_had_does_not_cost_the_lease(harness: Harness, database: Database) -> None:
    """Somebody alters the table: looks wait for the lock in vain, renewals do not wait."""
    harness.round()
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.job")
        for _ in range(2):  # together, and then alone
            harness.scheduler.header.lease_until = 0.0
            with pytest.raises(psycopg.errors.LockNotAvailable):
                harness.round()
            assert harness.scheduler.header.lease_until > boottime()
    harness.round()
    assert harness.scheduler.poller.succeeded


@pytest.mark.parametrize("sees", [True, False], ids=["with a look", "alone"])
def test_a_lease_is_prolonged_wherever_the_row_of_the_node_stands(harness: Harness, *, sees: bool) -> None:
    """It is looked for where the last renewal has left it; somebody may have written the table anew."""
    header = harness.scheduler.header
    harness.round()
    harness.conn.execute("VACUUM FULL qworker.node")
    harness.conn.execute("UPDATE qworker.node SET name = 'moved'")
    harness.scheduler.poller.succeeded, header.lease_until = sees, 0.0
    harness.round()
    assert header.lease_until > boottime()
    harness.conn.execute("DELETE FROM qworker.node")
    harness.scheduler.poller.succeeded = sees
    harness.round()
    assert header.declared_dead
    assert header.lease_until == 0.0


def test_one_who_writes_for_long_is_looked_for_twice_a_second(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "LINGERING_AFTER", 0.0)
    scheduler, writer = harness.scheduler, database.connect(autocommit=False)
    writer.execute("INSERT INTO qworker.job (task) VALUES ('t')")

    def next_look() -> float:
        began = monotonic()
        harness.round()
        return scheduler.poller.clock.due - began

    until(lambda: scheduler.watermarks.has_lingering_writer or not next_look())
    assert next_look() < 0.75 * RENEW_INTERVAL
    writer.rollback()
    next_look()
    assert not scheduler.watermarks.has_lingering_writer
    next_look()
    assert next_look() > 0.75 * RENEW_INTERVAL


def test_claims_as_old_as_a_look_once_had_to_ask_for_are_asked_for_until_they_are_reconciled(harness: Harness) -> None:
    """Somebody who lingered is gone: the time that is settled falls, and has risen again before `release` is due."""
    burials = harness.scheduler.reconciliation

    def asked(settled_at: float) -> float:
        return burials.since(settled_at)

    burials.since(1000.0)
    burials.release(harness.conn, NO_RESULT)
    assert asked(1000.0) == 999.0
    assert [asked(500.0), asked(1000.0)] == [499.0, 499.0]
    burials.release(harness.conn, NO_RESULT)
    assert asked(1000.0) == 999.0


def test_a_claim_that_no_poll_has_seen_is_released_although_the_next_poll_failed(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "CONFIRM_AFTER", 0.0)
    reconciled = harness.scheduler.reconciliation
    assert not harness.scheduler.poller.result.has_running
    node = harness.node.table.header.node
    job = harness.insert(
        "task, state, node, token, claimed_at", f"'noop', 'running', {node}, 5, now() - interval '9 s'"
    )
    harness.scheduler.watermarks._settled.at = time()  # the claim was committed after the last poll
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.queue")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            harness.round()
        reconciled.release(harness.conn, harness.scheduler.poller.result)
    harness.round()
    reconciled.release(harness.conn, harness.scheduler.poller.result)
    assert harness.state(job) == "available"


def test_a_round_of_a_node_that_has_nothing_to_do_is_one_statement(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.round()
    sent: list[object] = []
    execute = psycopg.Cursor.execute

    def counting(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(cursor, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counting)
    harness.round()
    assert len(sent) == 1


def test_after_a_reconnect_it_is_reported_anew_that_the_node_sleeps(harness: Harness) -> None:
    harness.slot.assign(Role.WORKER, 1, 0.0, 0.0)
    harness.slot.enter(Phase.IDLE, inf)
    for _ in range(2):
        harness.scheduler.generation = 0
        harness.round()
        assert harness.conn.execute("DELETE FROM qworker.idle_node RETURNING 1").fetchall() == [(1,)]


def test_keys_whose_period_is_over_are_deleted_as_fast_as_they_come(harness: Harness) -> None:
    harness.conn.execute(
        "INSERT INTO qworker.unique_key (task, key, job_id, expires_at) SELECT 't', n::text, n, now()"
        "  FROM generate_series(1, 5000) AS n"
    )
    harness.conn.execute(
        "INSERT INTO qworker.job (task, state, failed_at) SELECT 't', 'failed', now() - interval '90 days'"
        "  FROM generate_series(1, 2500)"
    )
    for duty in harness.scheduler.maintenance._tasks:
        duty.due = 0.0
    harness.round()
    left = "SELECT (SELECT count(*) FROM qworker.unique_key) + (SELECT count(*) FROM qworker.job)"
    assert harness.conn.execute(left).fetchone() == (0,)


def test_a_duty_that_is_not_done_with_is_due_again_soon(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "TIME_LIMIT", 0.0)
    harness.conn.execute(
        "INSERT INTO qworker.unique_key (task, key, job_id, expires_at) SELECT 't', n::text, n, now()"
        "  FROM generate_series(1, 1500) AS n"
    )
    (duty,) = [duty for duty in harness.scheduler.maintenance._tasks if duty.name == "keys"]
    duty.due = 0.0
    harness.round()
    assert monotonic() < duty.due <= monotonic() + MORE_INTERVAL
    duty.due = 0.0
    harness.round()
    duty.due = 0.0
    harness.round()
    assert duty.due > monotonic() + MORE_INTERVAL
    assert harness.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchone() == (0,)


def test_a_node_tells_by_how_much_its_clock_is_ahead_of_that_of_the_database(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworkerd.scheduler.poller.time", lambda: time() + 90)
    harness.round()
    harness.round()
    ((state,),) = harness.conn.execute("SELECT state FROM qworker.node").fetchall()
    assert state["clock"]["ahead"] == pytest.approx(90, abs=1)
    assert 0 <= state["clock"]["uncertain"] < 1
    assert state["timezones"] == timezone_version()
