"""A seat: the supervisor's view of one child it keeps alive, and of when to replace it."""

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field

from qworkerd.slots import Phase, Role, Slot
from qworkerd.supervisor.reaper import kill_group

#: A child that lived so long after it was ready has proven itself (seconds).
STABLE = 30.0
#: A child that was killed and is not reaped is killed again after this time (seconds).
KILL_AGAIN = 1.0
_BASE = 0.5
_CAP = 30.0


@dataclass(slots=True)
class Seat:
    """One of the places for children: the scheduler's, or a worker's."""

    role: Role
    number: int
    #: The child's process id, 0 while the seat is empty.
    pid: int = 0
    slot: Slot | None = None
    #: When the child was forked (monotonic).
    since: float = 0.0
    #: How many children in a row have died young.
    streak: int = 0
    #: When the next child may be forked (monotonic).
    due: float = 0.0
    #: Why the supervisor has killed the child, empty as long as it has not.
    sentence: str = ""
    #: When the sentence is carried out (monotonic), stacks are dumped before; then when the child is killed again.
    execution: float = 0.0
    #: Whether it was killed.
    killed: bool = False
    #: Signals that the supervisor has sent to the child.
    sent: set[int] = field(default_factory=set)
    #: What the last look found overdue: phase and deadline.
    suspicion: tuple[int, float] | None = None
    #: When it was found (monotonic).
    suspected: float = 0.0

    @property
    def name(self) -> str:
        """The child's name in the log."""
        return "scheduler" if self.role is Role.SCHEDULER else f"worker {self.number}"

    @property
    def ready(self) -> bool:
        """Whether the child has booted."""
        return self.slot is not None and self.pid != 0 and self.slot.words[Slot.PHASE] != Phase.BOOTING

    def seat(self, pid: int, slot: Slot, now: float) -> None:
        """Take note of a new child."""
        self.pid, self.slot, self.since = pid, slot, now
        self.sentence, self.suspicion, self.sent, self.killed = "", None, set(), False

    def kill(self, reason: str, now: float) -> None:
        """Kill the child and its group, for this reason; `Overdue` does so again until it is reaped."""
        self.sentence, self.killed, self.execution = reason, True, now + KILL_AGAIN
        kill_group(self.pid)

    def signal(self, signum: int) -> None:
        """Signal the child, not its group: the subprocesses of jobs are the jobs' business."""
        if self.pid:
            self.sent.add(signum)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def vacate(self, now: float, *, blameless: bool) -> float:
        """The child is gone: decide when to replace it; return the delay in seconds.

        The first death after a stable life is replaced at once, and so is one the child is not to blame for; then the
        delay doubles. It never gives up: a database that is away must not become an outage of its own. All workers
        depend on the scheduler: one that dies before it is up must not take the machine's time even once.
        """
        up = self.ready
        young = not up or now - self.since < STABLE
        self.streak = self.streak + 1 if young and not blameless else 0
        self.pid, self.slot = 0, None
        delay = 0.0
        if self.streak > 1 or (self.streak and self.role is Role.SCHEDULER and not up):
            delay = min(_CAP, _BASE * 2.0 ** min(self.streak - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        self.due = now + delay
        return delay
