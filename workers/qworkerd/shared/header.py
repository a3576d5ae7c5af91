"""The header of the shared memory: the state of the whole node, which all its processes read."""

from time import CLOCK_BOOTTIME, clock_gettime


def boottime() -> float:
    """Return CLOCK_BOOTTIME, which measures leases because it continues during suspend (seconds)."""
    return clock_gettime(CLOCK_BOOTTIME)


class Header:
    """The state of the whole node."""

    __slots__ = ("floats", "words")

    NODE, DRAINING, QUEUES_EMPTY, BUDGET, DECLARED_DEAD = range(5)
    LEASE_UNTIL, SUPERVISOR_SEEN_AT = range(5, 7)
    #: Number of stale writes of workers that have exited. Written by the supervisor.
    STALE = 7
    #: Whether a job was released because this node does not know its task. Set by workers, never cleared.
    UNKNOWN_TASK = 8

    def __init__(self, memory: memoryview) -> None:
        self.words = memory.cast("q")
        self.floats = memory.cast("d")

    @property
    def node(self) -> int:
        """The node's id in the database; 0 before it is registered. Written by the scheduler."""
        return self.words[Header.NODE]

    @node.setter
    def node(self, value: int) -> None:
        self.words[Header.NODE] = value

    @property
    def lease_until(self) -> float:
        """Until when no other node may release this node's jobs (`boottime`). Written by the scheduler."""
        return self.floats[Header.LEASE_UNTIL]

    @lease_until.setter
    def lease_until(self, value: float) -> None:
        self.floats[Header.LEASE_UNTIL] = value

    @property
    def declared_dead(self) -> bool:
        """Whether other nodes have declared this one dead. Cleared by the supervisor once no worker is left."""
        return bool(self.words[Header.DECLARED_DEAD])

    @declared_dead.setter
    def declared_dead(self, value: bool) -> None:
        self.words[Header.DECLARED_DEAD] = value

    @property
    def supervisor_seen_at(self) -> float:
        """When the supervisor's loop last ran (`boottime`)."""
        return self.floats[Header.SUPERVISOR_SEEN_AT]

    @supervisor_seen_at.setter
    def supervisor_seen_at(self, value: float) -> None:
        self.floats[Header.SUPERVISOR_SEEN_AT] = value

    @property
    def draining(self) -> bool:
        """Whether the node is shutting down and claims no more jobs. Written by the supervisor."""
        return bool(self.words[Header.DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self.words[Header.DRAINING] = value

    @property
    def queues_empty(self) -> bool:
        """Whether the queues hold no unfinished work, which ends a node with --burst. Written by the scheduler."""
        return bool(self.words[Header.QUEUES_EMPTY])

    @queues_empty.setter
    def queues_empty(self, value: bool) -> None:
        self.words[Header.QUEUES_EMPTY] = value
