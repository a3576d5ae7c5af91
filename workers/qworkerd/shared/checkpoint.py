"""Which counts of a node are in the database: kept in shared memory, where it survives the scheduler."""

import mmap
import os
from array import array
from collections.abc import Iterable

from qworkerd.shared.tally import CELLS, REGION, cells

_WORD = 8
#: Limit of what is added at once: as microseconds, more than all processors of a node spend in an hour.
_MAX_TIME = 1 << 43


class Checkpoint:
    """Two copies of the counts: those of the last write that was confirmed, and those of the one after it.

    The copy of write n is number n % 2. A write is prepared, sent until the database has confirmed it, and then
    confirmed by one store. A scheduler that dies in between is replaced by one that sends the same counts under the
    same number, and the database takes a number once.
    """

    _PREPARED, _CONFIRMED, _SOURCE = range(3)

    __slots__ = ("_copies", "_words")

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 3 * _WORD)).cast("q")
        self._copies = cells(2)
        self._words[Checkpoint._SOURCE] = int.from_bytes(os.urandom(8)) >> 1

    @property
    def source(self) -> int:
        """The number of the node, drawn once."""
        return self._words[Checkpoint._SOURCE]

    @property
    def confirmed(self) -> int:
        """The number of the last write that was confirmed; 0 before the first."""
        return self._words[Checkpoint._CONFIRMED]

    @property
    def pending(self) -> bool:
        """Whether a write was prepared and not confirmed."""
        return self._words[Checkpoint._PREPARED] > self._words[Checkpoint._CONFIRMED]

    def prepare(self, counts: Iterable[Iterable[int]]) -> None:
        """Store the counts of the next write: those of every series in use, in the order of their numbers."""
        number = self.confirmed + 1
        target = self._copy(number)
        for series, values in enumerate(counts):
            target[series * CELLS : (series + 1) * CELLS] = memoryview(array("q", values))
        self._words[Checkpoint._PREPARED] = number

    def difference(self, series: int) -> list[int]:
        """Return what the pending write adds to a series."""
        number, at = self.confirmed + 1, series * CELLS
        before, after = self._copy(number - 1)[at : at + CELLS], self._copy(number)[at : at + CELLS]
        if before == after:
            return []
        # A handler that damages this memory must not make counts that the database cannot add, for ever.
        return [min(max(now - then, 0), _MAX_TIME) for now, then in zip(after, before, strict=True)]

    def confirm(self) -> None:
        """Record that the database has the pending write."""
        self._words[Checkpoint._CONFIRMED] = self._words[Checkpoint._PREPARED]

    def _copy(self, number: int) -> "memoryview[int]":
        at = number % 2 * REGION
        return self._copies[at : at + REGION]
