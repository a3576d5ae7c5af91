"""When something that is repeated is due."""

import pytest

from qworkerd.scheduler import periodic
from qworkerd.scheduler.periodic import Periodic


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(periodic, "monotonic", clock)
    return clock


def due(periodic: Periodic, clock: Clock, *times: float) -> list[bool]:
    """Tell at which of these times it is due."""
    found = []
    for clock.now in times:
        found.append(periodic.is_due)
    return found


def test_it_is_due_at_once_and_then_after_each_interval(clock: Clock) -> None:
    renewal = Periodic(5.0)
    assert renewal.is_due
    renewal.restart()
    assert due(renewal, clock, 100.0, 104.9, 105.0, 200.0) == [False, False, True, True]
    renewal.restart()
    assert renewal.due == 205.0


def test_an_interval_can_begin_before_the_work_that_it_repeats_has_ended(clock: Clock) -> None:
    renewal = Periodic(5.0)
    renewal.restart(97.0)
    assert due(renewal, clock, 101.9, 102.0) == [False, True]


def test_it_can_be_hastened_but_not_delayed(clock: Clock) -> None:
    poll = Periodic(5.0)
    poll.restart()
    poll.hasten(7.0)
    assert poll.due == 105.0
    poll.hasten(2.0)
    assert poll.due == 102.0
    poll.hasten()
    assert poll.is_due
    poll.restart()
    assert not poll.is_due
