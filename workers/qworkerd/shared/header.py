"""The header of the shared memory: the state of the whole node, which all its processes read."""

from dataclasses import dataclass
from time import CLOCK_BOOTTIME, clock_gettime

from qworkerd.shared.fields import BoolField, FloatField, IntField


def boottime() -> float:
    """Return CLOCK_BOOTTIME, which measures leases because it continues during suspend (seconds)."""
    return clock_gettime(CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """The last worker of the node that died unexpectedly."""

    #: How many have died since the node started.
    count: int
    worker: int
    pid: int
    #: When (monotonic).
    at: float
    cause: str


class Header:
    """The state of the whole node."""

    __slots__ = ("_cause", "floats", "words")

    NODE, DRAINING, QUEUES_EMPTY, BUDGET, DECLARED_DEAD = range(5)
    LEASE_UNTIL, SUPERVISOR_SEEN_AT = range(5, 7)
    #: Number of stale writes of workers that have exited. Written by the supervisor.
    STALE = 7
    #: Whether a job was released because this node does not know its task. Set by workers, never cleared.
    UNKNOWN_TASK = 8
    #: The workers that have died unexpectedly, and the last of them. Written by the supervisor, the number last.
    DEATHS, DIED_AT, DIED_WORKER, DIED_PID = range(9, 13)
    #: The words of its cause, to the end of the header.
    DIED_OF = 13

    #: The node's id in the database; 0 before it is registered. Written by the scheduler.
    node = IntField(NODE)
    #: Until when no other node may release this node's jobs (`boottime`). Written by the scheduler.
    lease_until = FloatField(LEASE_UNTIL)
    #: Whether other nodes have declared this one dead. Cleared by the supervisor once no worker is left.
    declared_dead = BoolField(DECLARED_DEAD)
    #: When the supervisor's loop last ran (`boottime`).
    supervisor_seen_at = FloatField(SUPERVISOR_SEEN_AT)
    #: Whether the node is shutting down and claims no more jobs. Written by the supervisor.
    draining = BoolField(DRAINING)
    #: Whether the queues hold no unfinished work, which ends a node with --burst. Written by the scheduler.
    queues_empty = BoolField(QUEUES_EMPTY)

    def __init__(self, memory: memoryview) -> None:
        self.words = memory.cast("q")
        self.floats = memory.cast("d")
        self._cause = memory[8 * Header.DIED_OF :]

    def record_death(self, worker: int, pid: int, cause: str, now: float) -> None:
        """Store that a worker has died unexpectedly."""
        text = cause.encode()[: len(self._cause)]
        self._cause[:] = text.ljust(len(self._cause), b"\0")
        self.words[Header.DIED_WORKER], self.words[Header.DIED_PID] = worker, pid
        self.floats[Header.DIED_AT] = now
        self.words[Header.DEATHS] += 1

    def last_death(self) -> WorkerDeath | None:
        """Return the last unexpected death of a worker; None if there was none."""
        if not self.words[Header.DEATHS]:
            return None
        return WorkerDeath(
            count=self.words[Header.DEATHS], worker=self.words[Header.DIED_WORKER], pid=self.words[Header.DIED_PID],
            at=self.floats[Header.DIED_AT], cause=bytes(self._cause).rstrip(b"\0").decode(errors="replace"),
        )  # fmt: skip
