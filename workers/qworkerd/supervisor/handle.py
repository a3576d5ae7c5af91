"""A seat: the supervisor's view of one child it keeps alive, and of when to replace it."""

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field

from qworkerd.shared.slots import Phase, Role, Slot
from qworkerd.supervisor.reaper import kill_group

#: A child that lived so long after it was ready has proven itself (seconds).
STABLE_AFTER = 30.0
#: A child that was killed and is not reaped is killed again after this time (seconds).
KILL_AGAIN = 1.0
_RESPAWN_FIRST = 0.5
_RESPAWN_LONGEST = 30.0


@dataclass(slots=True)
class ChildHandle:
    """One of the places for children: the scheduler's, or a worker's."""

    role: Role
    number: int
    #: The child's process id, 0 while the seat is empty.
    pid: int = 0
    slot: Slot | None = None
    #: When the child was forked (monotonic).
    since: float = 0.0
    #: How many children in a row have died young.
    early_deaths: int = 0
    #: When the next child may be forked (monotonic).
    due: float = 0.0
    #: Why the supervisor has killed the child, empty as long as it has not.
    kill_reason: str = ""
    #: When the sentence is carried out (monotonic), stacks are dumped before; then when the child is killed again.
    kill_at: float = 0.0
    #: Whether it was killed.
    killed: bool = False
    #: Signals that the supervisor has sent to the child.
    sent: set[int] = field(default_factory=set)
    #: What the last look found overdue: phase and deadline.
    overdue: tuple[int, float] | None = None
    #: When it was found (monotonic).
    overdue_since: float = 0.0

    @property
    def name(self) -> str:
        """The child's name in the log."""
        return "scheduler" if self.role is Role.SCHEDULER else f"worker {self.number}"

    @property
    def ready(self) -> bool:
        """Whether the child has booted."""
        return self.slot is not None and self.pid != 0 and self.slot.words[Slot.PHASE] != Phase.BOOTING

    def started(self, pid: int, slot: Slot, now: float) -> None:
        """Take note of a new child."""
        self.pid, self.slot, self.since = pid, slot, now
        self.kill_reason, self.overdue, self.sent, self.killed = "", None, set(), False

    def kill(self, reason: str, now: float) -> None:
        """Kill the child and its group, for this reason; `Overdue` does so again until it is reaped."""
        self.kill_reason, self.killed, self.kill_at = reason, True, now + KILL_AGAIN
        kill_group(self.pid)

    def signal(self, signum: int) -> None:
        """Signal the child, not its group: the subprocesses of jobs are the jobs' business."""
        if self.pid:
            self.sent.add(signum)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def exited(self, now: float, *, blameless: bool) -> float:
        """The child is gone: decide when to replace it; return the delay in seconds.

        The first death after a stable life is replaced at once, and so is one the child is not to blame for; then the
        delay doubles. It never gives up: a database that is away must not become an outage of its own. All workers
        depend on the scheduler: one that dies before it is up must not take the machine's time even once.
        """
        up = self.ready
        young = not up or now - self.since < STABLE_AFTER
        self.early_deaths = self.early_deaths + 1 if young and not blameless else 0
        self.pid, self.slot = 0, None
        delay = 0.0
        if self.early_deaths > 1 or (self.early_deaths and self.role is Role.SCHEDULER and not up):
            delay = min(_RESPAWN_LONGEST, _RESPAWN_FIRST * 2.0 ** min(self.early_deaths - 1, 10))
            delay *= random.uniform(0.5, 1)  # noqa: S311
        self.due = now + delay
        return delay
