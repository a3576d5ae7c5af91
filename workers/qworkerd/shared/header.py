"""What concerns the whole node, in shared memory: one page that every process of it reads."""

from time import CLOCK_BOOTTIME, clock_gettime


def boottime() -> float:
    """Return the clock that leases are measured by: it goes on while the machine sleeps (seconds)."""
    return clock_gettime(CLOCK_BOOTTIME)


class Header:
    """What concerns the whole node."""

    __slots__ = ("floats", "words")

    NODE, DRAINING, QUEUES_EMPTY, BUDGET, DECLARED_DEAD = range(5)
    LEASE_UNTIL, SUPERVISOR_SEEN_AT = range(5, 7)
    #: Refused writes of workers that are gone. Written by the supervisor.
    STALE = 7
    #: Whether a job was put back because its task is unknown here. Set by any worker, cleared by nobody.
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
        """Until when nobody else may take this node's jobs (`boottime`). Written by the scheduler."""
        return self.floats[Header.LEASE_UNTIL]

    @lease_until.setter
    def lease_until(self, value: float) -> None:
        self.floats[Header.LEASE_UNTIL] = value

    @property
    def declared_dead(self) -> bool:
        """Others have declared the node dead: set by the scheduler, cleared by the supervisor once no worker lives."""
        return bool(self.words[Header.DECLARED_DEAD])

    @declared_dead.setter
    def declared_dead(self, value: bool) -> None:
        self.words[Header.DECLARED_DEAD] = value

    @property
    def supervisor_seen_at(self) -> float:
        """When the supervisor last went round its loop (`boottime`)."""
        return self.floats[Header.SUPERVISOR_SEEN_AT]

    @supervisor_seen_at.setter
    def supervisor_seen_at(self, value: float) -> None:
        self.floats[Header.SUPERVISOR_SEEN_AT] = value

    @property
    def draining(self) -> bool:
        """No new work: the node is shutting down. Written by the supervisor."""
        return bool(self.words[Header.DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self.words[Header.DRAINING] = value

    @property
    def queues_empty(self) -> bool:
        """The queues hold no unfinished work: with --burst, the end. Written by the scheduler."""
        return bool(self.words[Header.QUEUES_EMPTY])

    @queues_empty.setter
    def queues_empty(self, value: bool) -> None:
        self.words[Header.QUEUES_EMPTY] = value
