"""The paused queues of a node, and whether it is paused itself, in memory that its processes share."""

import mmap
from collections.abc import Collection, Sequence

from qworker.options import PRIORITIES

_WORD = 8
#: The word of the counter, and the flag of the node; the flags of the queues follow.
_CHANGES, _NODE, _QUEUES = 0, 1, 2
#: A seq above that of every job: a claim that starts there finds no job in the lane.
PAST_END = 2**63 - 1


class PausedQueues:
    """One flag for each queue and one for the node, as if each of its queues was paused, and a counter of changes.

    The scheduler writes, the workers read. The scheduler stores the flags before it increments the counter, and a
    reader reads the counter before the flags. A reader that sees flags half written therefore reads them again.
    """

    __slots__ = ("_flags", "_known", "_priorities", "_queues", "_words")

    def __init__(self, queues: Sequence[str], priorities: Sequence[int] = PRIORITIES) -> None:
        self._queues = tuple(queues)
        #: The number of the lanes of a queue, which have consecutive numbers.
        self._priorities = len(priorities)
        self._words = memoryview(mmap.mmap(-1, _WORD * (_QUEUES + len(queues)))).cast("q")
        self._flags = self._words[_QUEUES:]
        #: A count of changes, and the lanes of the paused queues then: one attribute, as two threads may replace it.
        self._known: tuple[int, list[int]] = 0, []

    @property
    def changes(self) -> int:
        """How often it has changed what is paused."""
        return self._words[_CHANGES]

    @property
    def node(self) -> bool:
        """Whether the node is paused."""
        return bool(self._words[_NODE])

    @property
    def queues(self) -> frozenset[str]:
        """The paused queues."""
        return frozenset(queue for queue, paused in zip(self._queues, self._flags, strict=True) if paused)

    @property
    def names(self) -> frozenset[str]:
        """The queues from which no job may be claimed: the paused ones, or all of a paused node."""
        return frozenset(self._queues) if self.node else self.queues

    def set(self, names: Collection[str], *, node: bool = False) -> None:
        """Replace the set of paused queues, and whether the node is paused."""
        for number, queue in enumerate(self._queues):
            self._flags[number] = queue in names
        self._words[_NODE] = node
        self._words[_CHANGES] += 1

    @property
    def lanes(self) -> list[int]:
        """The numbers of the lanes from which no job may be claimed."""
        changes, (known, lanes) = self._words[_CHANGES], self._known
        if changes != known:
            lanes = self.lanes_of(self.names)
            self._known = changes, lanes
        return lanes

    def lanes_of(self, names: Collection[str]) -> list[int]:
        """Return the numbers of the lanes of some queues of the node."""
        return [
            number * self._priorities + priority
            for number, queue in enumerate(self._queues) if queue in names
            for priority in range(self._priorities)
        ]  # fmt: skip

    @property
    def all(self) -> bool:
        """Whether no job may be claimed from any queue of the node."""
        return len(self.lanes) == self._priorities * len(self._queues)

    def exclude(self, cursors: list[int]) -> list[int]:
        """Return the cursors of a claim, which in the lanes of paused queues are above the seq of every job."""
        lanes = self.lanes
        if not lanes:
            return cursors
        limited = cursors.copy()
        for lane in lanes:
            limited[lane] = PAST_END
        return limited
