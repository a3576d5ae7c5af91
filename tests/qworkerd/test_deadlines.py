"""Who is past a deadline is looked at twice, then shows its stacks, then dies; unless it has got over it."""

import os
from math import inf

import pytest

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.shared.slots import Phase, Role, Slot
from qworkerd.shared.stacks import DUMP_SIGNAL
from qworkerd.supervisor.deadlines import CONFIRM_AFTER, STACK_DUMP_GRACE, DeadlineEnforcer
from qworkerd.supervisor.handle import KILL_INTERVAL, ChildHandle


class Bench:
    """A worker past its deadline, looked at by a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        node = make_node(App(), Settings(processes=1))
        self.overdue, self.slot, self.seat = DeadlineEnforcer(node), node.table.slots[0], ChildHandle(Role.WORKER, 1)
        self.killed: list[int] = []
        self.dumped: list[int] = []
        self.now = 100.0
        self.slot.assign(Role.WORKER, 1, inf, 0.0)
        self.claim = self.slot.claims[0]
        self.claim.open(7)
        self.claim.fill([1, 2], [0, 0], [1, 1])
        self.seat.started(4711, self.slot, 0.0)
        monkeypatch.setattr("qworkerd.supervisor.deadlines.monotonic", lambda: self.now)
        monkeypatch.setattr("qworkerd.supervisor.handle.kill_group", self.killed.append)
        monkeypatch.setattr(os, "kill", lambda _, signum: self.dumped.append(signum))

    def run(self, position: int, deadline: float) -> None:
        for other in range(position):
            self.claim.statuses[other] = 3
        self.claim.statuses[position] = 1
        self.slot.floats[Slot.DEADLINE] = deadline
        self.slot.words[Slot.PHASE] = Phase.RUNNING

    def look(self, seconds: float) -> None:
        self.now += seconds
        self.overdue.enforce([self.seat])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_job_past_its_hard_deadline_shows_its_stacks_and_dies(bench: Bench) -> None:
    bench.run(0, deadline=100.5)
    bench.look(0.4)
    bench.look(0.2)
    assert not bench.seat.kill_reason
    bench.look(CONFIRM_AFTER + 0.01)
    assert (bench.seat.kill_reason, bench.dumped, bench.killed) == ("timeout", [DUMP_SIGNAL], [])
    bench.look(STACK_DUMP_GRACE + 0.01)
    assert (bench.seat.kill_reason, bench.killed) == ("timeout", [4711])


def test_a_child_is_killed_again_each_second_until_it_is_reaped(bench: Bench) -> None:
    bench.run(0, deadline=100.5)
    for seconds in (0.6, CONFIRM_AFTER + 0.01, STACK_DUMP_GRACE + 0.01):
        bench.look(seconds)
    bench.run(1, deadline=inf)  # as if it had got over it: it was killed, and there is no way back
    bench.look(KILL_INTERVAL - 0.1)
    assert bench.killed == [4711]
    bench.look(0.2)
    bench.look(KILL_INTERVAL + 0.1)
    assert (bench.seat.kill_reason, bench.killed) == ("timeout", [4711] * 3)
    bench.seat.exited(bench.now, blameless=True)
    bench.look(KILL_INTERVAL + 0.1)
    assert len(bench.killed) == 3


def test_a_job_that_ends_at_the_last_moment_does_not_cost_the_next_one_its_life(bench: Bench) -> None:
    bench.run(0, deadline=100.5)
    bench.look(0.6)
    bench.look(CONFIRM_AFTER + 0.01)
    assert bench.seat.kill_reason == "timeout"
    bench.run(1, deadline=200.0)
    bench.look(STACK_DUMP_GRACE + 0.01)
    assert not bench.seat.kill_reason
    assert not bench.killed
    bench.now = 200.0
    bench.look(0.1)
    bench.look(CONFIRM_AFTER + 0.01)
    bench.look(STACK_DUMP_GRACE + 0.01)
    assert bench.killed == [4711]


def test_stacks_from_before_are_not_those_of_the_deadline(bench: Bench) -> None:
    """`jobs stack` may have asked for them when the process was stopped."""
    stacks = bench.slot.stacks
    os.pwrite(stacks._stacks.fd, b"of another job", stacks._start + 8)
    assert stacks.read() == "of another job"
    bench.run(0, deadline=100.5)
    bench.look(0.6)
    bench.look(CONFIRM_AFTER + 0.01)
    assert bench.dumped == [DUMP_SIGNAL]
    assert stacks.read() == ""
