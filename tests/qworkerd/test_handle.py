"""When a dead child is replaced: at once if it may be chance, ever later if it is a habit, and always in the end."""

import pytest

from qworkerd.shared.cause import Cause
from qworkerd.shared.slots import Phase, Role, Slot, SlotTable
from qworkerd.supervisor.handle import STABLE_AFTER, ChildHandle, Overdue


@pytest.fixture
def slot() -> Slot:
    return SlotTable(1).slots[0]


def life(seat: ChildHandle, slot: Slot, seconds: float, *, booted: bool = True, blameless: bool = False) -> float:
    """Have a child live in the seat for so long; return after how many seconds it is replaced."""
    slot.assign(seat.role, seat.number, deadline=0, now=0)
    seat.started(4711, slot, 100.0)
    if booted:
        slot.enter(Phase.IDLE, 0)
    delay = seat.exited(100.0 + seconds, blameless=blameless)
    assert seat.due == 100.0 + seconds + delay
    return delay


@pytest.fixture
def worker() -> ChildHandle:
    return ChildHandle(Role.WORKER, 3)


def test_it_is_named_for_the_log(worker: ChildHandle) -> None:
    assert worker.name == "worker 3"
    assert ChildHandle(Role.SCHEDULER, 0).name == "scheduler"


def test_it_is_ready_once_its_child_has_booted(worker: ChildHandle, slot: Slot) -> None:
    seen = [worker.ready]
    slot.assign(Role.WORKER, 3, deadline=0, now=0)
    worker.started(4711, slot, 0.0)
    seen.append(worker.ready)
    slot.enter(Phase.CLAIMING, 0)
    seen.append(worker.ready)
    worker.exited(1.0, blameless=False)
    seen.append(worker.ready)
    assert seen == [False, False, True, False]


def test_one_early_death_may_be_chance(worker: ChildHandle, slot: Slot) -> None:
    assert life(worker, slot, 0.1) == 0


def test_the_delay_doubles_up_to_half_a_minute_and_never_ends(worker: ChildHandle, slot: Slot) -> None:
    delays = [life(worker, slot, 0.1, booted=False) for _ in range(40)]
    assert delays[0] == 0
    for delay, longest in zip(delays[1:], [1, 2, 4, 8, 16, *[30] * 40], strict=False):
        assert longest / 2 <= delay <= longest


def test_the_longest_delay_can_be_shorter(slot: Slot) -> None:
    scheduler = ChildHandle(Role.SCHEDULER, 0, max_delay=5.0)
    delays = [life(scheduler, slot, 0.1) for _ in range(2000)]
    assert max(delays) <= 5


def test_a_stable_life_starts_anew(worker: ChildHandle, slot: Slot) -> None:
    for _ in range(5):
        life(worker, slot, 0.1)
    assert life(worker, slot, STABLE_AFTER + 1) == 0
    assert life(worker, slot, 0.1) == 0
    assert life(worker, slot, 0.1) > 0


def test_a_long_boot_is_no_stable_life(worker: ChildHandle, slot: Slot) -> None:
    life(worker, slot, 0.1)
    assert life(worker, slot, 2 * STABLE_AFTER, booted=False) > 0


def test_what_the_child_is_not_to_blame_for_is_forgotten(worker: ChildHandle, slot: Slot) -> None:
    """A job that kills its worker, or an order of ours: the next child is not suspected."""
    for _ in range(5):
        life(worker, slot, 0.1)
    assert life(worker, slot, 0.1, blameless=True) == 0
    assert life(worker, slot, 0.1) == 0


def test_a_scheduler_that_does_not_come_up_waits_even_the_first_time(slot: Slot) -> None:
    """All workers depend on it; one that dies at once must not take the machine's time."""
    scheduler = ChildHandle(Role.SCHEDULER, 0)
    assert 0.25 <= life(scheduler, slot, 0.1, booted=False) <= 0.5
    assert life(scheduler, slot, STABLE_AFTER + 1) == 0


def test_a_scheduler_that_was_up_is_replaced_at_once(slot: Slot) -> None:
    """Somebody has killed it: jobs become due meanwhile."""
    scheduler = ChildHandle(Role.SCHEDULER, 0)
    assert life(scheduler, slot, 0.1) == 0
    assert life(scheduler, slot, 0.1) > 0


def test_nothing_of_the_last_child_concerns_the_next(worker: ChildHandle, slot: Slot) -> None:
    slot.assign(Role.WORKER, 3, deadline=0, now=0)
    worker.started(4711, slot, 0.0)
    worker.kill_reason, worker.overdue = Cause.TIMEOUT, Overdue(Phase.RUNNING, 1.0)
    worker.exited(1.0, blameless=True)
    worker.started(4712, slot, 2.0)
    assert not worker.kill_reason
    assert not worker.overdue
