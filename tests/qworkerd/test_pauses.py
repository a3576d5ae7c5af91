"""How a scheduler brings the paused queues to its workers, if it is interrupted or the database refuses."""

from collections.abc import Iterator

import psycopg
import pytest

from qworker import App
from qworker.named_queue import Queue
from qworker.registry import Registry
from qworkerd.scheduler.loop import Scheduler
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Phase, Role
from qworkerd.shared.wakeup import WakeupPipe
from tests.database import Database
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture

harness = harness_fixture


@pytest.fixture
def queue(database: Database) -> Iterator[Queue]:
    app = App(database.dsn)
    yield app.queue("default")
    app.close()


def test_a_change_that_a_killed_scheduler_had_not_counted_reaches_the_workers(harness: Harness, queue: Queue) -> None:
    paused = harness.node.paused
    assert paused.lanes == []
    queue.pause()
    paused._flags[0] = True  # the scheduler was killed before it counted the change
    assert paused.lanes == []
    harness.scheduler.connection.drop()
    harness.scheduler = Scheduler(harness.node, harness.node.table.slots[0])
    harness.round()
    assert paused.lanes == [*range(10)]


def test_a_lock_on_the_settings_of_queues_does_not_cost_the_lease_after_a_reconnect(
    harness: Harness, database: Database
) -> None:
    harness.scheduler.connection.drop()
    harness.scheduler.header.lease_until = 0.0
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.queue")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            harness.round()
    assert harness.scheduler.header.lease_until > boottime()


def test_a_pause_is_applied_before_a_new_session_wakes_a_worker(
    harness: Harness, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.pause()
    harness.slot.assign(Role.WORKER, 1, 0.0, 0.0)
    harness.slot.enter(Phase.IDLE, 0.0)
    harness.scheduler.connection.drop()
    harness.scheduler.poller.succeeded = False  # as in the process that replaces a killed scheduler
    woken: list[bool] = []
    monkeypatch.setattr(WakeupPipe, "wake", lambda _: woken.append(harness.node.paused.all))
    harness.round()
    assert woken
    assert all(woken)


def test_the_queues_for_which_a_node_is_woken_are_stored_again_if_that_failed(
    harness: Harness, database: Database, queue: Queue
) -> None:
    def idle_queues() -> list[tuple[list[str]]]:
        return harness.conn.execute("SELECT queues FROM qworker.idle_node").fetchall()

    queue.pause()
    harness.slot.assign(Role.WORKER, 1, 0.0, 0.0)
    harness.slot.enter(Phase.IDLE, 0.0)
    harness.round()
    assert idle_queues() == []
    queue.resume()
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.idle_node")
        harness.round()
    harness.round()
    assert idle_queues() == [(["default"],)]


@pytest.mark.parametrize("together", [True, False], ids=["with the poll", "by separate statements"])
def test_a_node_that_was_declared_dead_stays_paused(
    harness: Harness, queue: Queue, monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    scheduler, header, memory = harness.scheduler, harness.node.table.header, harness.node.paused
    if not together:
        monkeypatch.setattr(Registry, "poll", lambda *_, **__: harness.conn.execute("SELECT 1 / 0"))
    first = header.node
    assert queue.admin.pause_nodes(first, reason="new kernel") == [first]
    harness.round()
    assert memory.node
    assert memory.all
    pauses = "SELECT node, paused_at, paused_by, pause_reason FROM qworker.paused_node"
    ((_, *pause),) = harness.conn.execute(pauses).fetchall()
    harness.conn.execute("DELETE FROM qworker.node")  # and with it the pause
    scheduler.poll(harness.conn)  # before the node learns that it was declared dead
    assert memory.all
    harness.round()
    assert header.declared_dead
    assert memory.all
    header.declared_dead, header.node = False, 0  # by the supervisor, when no worker is left
    for _ in range(2):
        harness.round()
        assert memory.all
    assert header.node != first
    assert harness.conn.execute(pauses).fetchall() == [(header.node, *pause)]
    queue.admin.resume_nodes(header.node)
    harness.round()
    assert memory.lanes == []


def test_a_scheduler_that_is_replaced_keeps_the_reason_for_when_it_registers_again(
    harness: Harness, queue: Queue
) -> None:
    queue.admin.pause_nodes(harness.node.table.header.node, reason="new kernel")
    harness.round()
    harness.scheduler.connection.drop()
    harness.scheduler = Scheduler(harness.node, harness.node.table.slots[0])
    harness.round()
    found = harness.node.kept_pause()
    assert found is not None
    assert found.reason == "new kernel"
    assert found == queue.admin.nodes()[0].paused


def test_a_paused_queue_is_told_from_a_paused_node(harness: Harness, queue: Queue) -> None:
    memory = harness.node.paused
    queue.pause()
    harness.round()
    assert memory.queues == {"default"}
    assert memory.all
    assert harness.node.kept_pause() is None
    queue.admin.pause_nodes(harness.node.table.header.node)
    queue.resume()
    harness.round()
    assert memory.queues == frozenset()
    assert memory.names == {"default"}
    assert memory.all
    assert harness.node.kept_pause() is not None
