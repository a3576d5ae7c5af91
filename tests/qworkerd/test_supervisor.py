"""The supervisor's own steps, where the kernel or another process would have to misbehave at the right moment."""

from collections.abc import Callable
from itertools import count
from math import inf

import pytest

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.shared.slots import Role, Slot, SlotState
from qworkerd.supervisor.loop import TICK, Supervisor
from qworkerd.supervisor.reaper import ChildExit
from qworkerd.supervisor.systemd import Notifier


@pytest.fixture
def supervisor() -> Supervisor:
    mains: dict[Role, Callable[[Slot], int]] = {Role.WORKER: lambda _: 0, Role.SCHEDULER: lambda _: 0}
    return Supervisor(make_node(App(), Settings(processes=1)), mains, Notifier({}))


def test_a_fork_that_fails_is_tried_again(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more processes are allowed, or no memory is left: the workers that live must not die with the supervisor."""
    pids = iter([4711])

    def fork(*_: object) -> int:
        try:
            return next(pids)
        except StopIteration:
            raise BlockingIOError(11, "Resource temporarily unavailable") from None

    monkeypatch.setattr("qworkerd.supervisor.child.fork", fork)
    monkeypatch.setattr("qworkerd.supervisor.loop.monotonic", lambda: 1000.0)
    supervisor.respawn()
    scheduler, worker = supervisor.scheduler, supervisor.workers[0]
    assert (scheduler.pid, worker.pid) == (4711, 0)
    assert [slot.state for slot in supervisor.table].count(SlotState.LIVE) == 1
    assert worker.due - worker.since > 0
    monkeypatch.setattr("qworkerd.supervisor.child.fork", lambda *_: 4712)
    supervisor.respawn()
    assert worker.pid == 0, "not before some time has passed"
    worker.due -= TICK
    supervisor.respawn()
    assert worker.pid == 4712


def test_a_scheduler_finds_a_slot_although_workers_die_meanwhile(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the scheduler frees the slots of dead workers: without a slot for it, the node would never work again."""
    pids = count(4711)
    monkeypatch.setattr("qworkerd.supervisor.child.fork", lambda *_: next(pids))
    scheduler, worker = supervisor.scheduler, supervisor.workers[0]
    supervisor.respawn()
    supervisor.on_child_exit(ChildExit(scheduler.pid, -9, 0, 0.0))
    scheduler.due = inf  # the delay after several deaths
    while worker.pid:
        assert worker.slot is not None
        worker.slot.claims[0].open(worker.pid)
        supervisor.on_child_exit(ChildExit(worker.pid, -9, 0, 0.0))
        worker.due = 0.0
        supervisor.respawn()
    scheduler.due = 0.0
    supervisor.respawn()
    assert scheduler.pid
