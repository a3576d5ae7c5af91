"""The supervisor's view of a child that it keeps running, and the delay before it is replaced."""

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from qworker.backoff import Backoff
from qworkerd.shared.cause import Cause
from qworkerd.shared.slots import Phase, Role, Slot
from qworkerd.supervisor.reaper import kill_group

#: A child that has run for this long has proven to be stable (seconds).
STABLE_AFTER = 30.0
#: A child that was killed but not reaped is killed again after this time (seconds).
KILL_INTERVAL = 1.0
_RESPAWN = Backoff(0.5, inf)


class Overdue(NamedTuple):
    """A phase whose deadline has passed."""

    phase: int
    #: Monotonic.
    deadline: float


@dataclass(slots=True)
class ChildHandle:
    """A child that the supervisor keeps running: the scheduler or a worker, forked again when it exits."""

    role: Role
    number: int
    #: The longest delay before it is replaced (seconds).
    max_delay: float = 30.0
    #: The child's process id; 0 while it is not running.
    pid: int = 0
    slot: Slot | None = None
    #: When the child was forked (monotonic).
    since: float = 0.0
    #: Number of consecutive early exits.
    early_deaths: int = 0
    #: When the next child may be forked (monotonic).
    due: float = 0.0
    #: Why the supervisor has decided to kill the child; None if it has not.
    kill_reason: Cause | None = None
    #: When the child is killed (monotonic), after its stacks were dumped; later, when it is killed again.
    kill_at: float = 0.0
    #: Whether the child was killed.
    killed: bool = False
    #: Signals that the supervisor has sent to the child.
    sent: set[int] = field(default_factory=set)
    #: The phase and deadline that the last check found overdue.
    overdue: Overdue | None = None
    #: When that was found (monotonic).
    overdue_since: float = 0.0

    @property
    def name(self) -> str:
        """The child's name in the log."""
        return f"worker {self.number}" if self.role is Role.WORKER else self.role.name.lower()

    @property
    def ready(self) -> bool:
        """Whether the child has booted."""
        return self.slot is not None and self.pid != 0 and self.slot.words[Slot.PHASE] != Phase.BOOTING

    def started(self, pid: int, slot: Slot, now: float) -> None:
        """Record a child that was forked."""
        self.pid, self.slot, self.since = pid, slot, now
        self.kill_reason, self.overdue, self.sent, self.killed = None, None, set(), False

    def kill(self, reason: Cause, now: float) -> None:
        """Kill the child and its process group. `DeadlineEnforcer` repeats it until the child is reaped."""
        self.kill_reason, self.killed, self.kill_at = reason, True, now + KILL_INTERVAL
        kill_group(self.pid)

    def signal(self, signum: int) -> None:
        """Signal the child but not its group, which contains the subprocesses of jobs."""
        if self.pid:
            self.sent.add(signum)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def exited(self, now: float, *, blameless: bool) -> float:
        """Record that the child has exited; return the delay before it is replaced (seconds).

        After the first early exit, and after one that the child did not cause, the child is replaced at once. The delay
        doubles after each further early exit. The supervisor never gives up, because an unavailable database must not
        stop the node. All workers depend on the scheduler: if it exits before it has booted, the first exit is followed
        by a delay.
        """
        up = self.ready
        early = not up or now - self.since < STABLE_AFTER
        self.early_deaths = self.early_deaths + 1 if early and not blameless else 0
        self.pid, self.slot = 0, None
        delay = 0.0
        if self.early_deaths > 1 or (self.early_deaths and self.role is Role.SCHEDULER and not up):
            delay = min(_RESPAWN.delay(self.early_deaths), self.max_delay) * random.uniform(0.5, 1)  # noqa: S311
        self.due = now + delay
        return delay
