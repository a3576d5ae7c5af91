"""Floors: from where a sweep has to begin, in memory that the processes of a node share."""

import mmap
import threading
from array import array
from collections.abc import Sequence

from qworkerd.shared.slots import Slot, SlotTable

_WORD = 8
_FIRST = 1


class Watermarks:
    """A place in the queue for each pair of queue and priority, below which no job can be claimed.

    An index keeps what an old snapshot could still see: a claim from the front walks over every job that has finished
    since, one from the floor over those of the last seconds. The scheduler raises the floors (`scheduler.survey`).
    Whoever hands a job back in its old place says so in its own slot and counts it there: then nobody relies on a floor
    above that place until the scheduler, having read the count, has looked from there. So each of these words has one
    writer, and no lowering is lost to a raising, whatever the order in which processes come to write.
    """

    __slots__ = (
        "_counted_releases",
        "_floats",
        "_lock",
        "_low",
        "_table",
        "_words",
        "claim_positions",
        "index",
        "priorities",
        "queues",
    )

    (SWEPT,) = range(_FIRST)

    def __init__(self, table: SlotTable, queues: Sequence[str]) -> None:
        pairs = [(queue, priority) for queue in queues for priority in range(10)]
        slots = len(table.slots)
        memory = memoryview(mmap.mmap(-1, _WORD * (_FIRST + slots + 2 * len(pairs))))
        self._words, self._floats = memory.cast("q"), memory.cast("d")
        #: How many hand-backs of each slot the floors reckon with; and the floors.
        self._counted_releases = self._words[_FIRST : _FIRST + slots]
        self._low = self._words[_FIRST + slots : _FIRST + slots + len(pairs)]
        #: How far the workers of this node have come, for each pair: claims that are no sweep begin here. All of them
        #: write it: one that is too low costs a walk, one that is too high is made up for by the next sweep.
        self.claim_positions = self._words[_FIRST + slots + len(pairs) :]
        self._table = table
        self._lock = threading.Lock()  # of this process: its threads share a slot
        self.queues = [queue for queue, _ in pairs]
        self.priorities = [priority for _, priority in pairs]
        #: The number of each pair.
        self.index = {pair: number for number, pair in enumerate(pairs)}

    @property
    def swept(self) -> float:
        """When a worker of this node last claimed from the floors (monotonic); 0: another one is to do so now."""
        return self._floats[Watermarks.SWEPT]

    @swept.setter
    def swept(self, now: float) -> None:
        self._floats[Watermarks.SWEPT] = now

    def scan_start(self) -> list[int]:
        """Return where a sweep begins, for each pair: it finds what comes behind."""
        returned = self.released_seq()
        floors: list[int] = self._low.tolist()
        return floors if returned is None else [min(floor, returned - 1) for floor in floors]

    def released_seq(self) -> int | None:
        """Return the lowest place that was handed back and that the floors do not reckon with yet."""
        if self.release_counts() == self._counted_releases.tolist():
            return None
        return min((slot.words[Slot.RELEASED_SEQ] for slot in self._table if self._is_uncounted(slot)), default=None)

    def release_counts(self) -> list[int]:
        """Return the count of each slot's hand-backs. A look that is to reckon with them asks for it before `front`."""
        return [slot.words[Slot.RELEASE_COUNT] for slot in self._table]

    def _is_uncounted(self, slot: Slot) -> bool:
        return bool(slot.words[Slot.RELEASE_COUNT] != self._counted_releases[slot.index])

    def report_release(self, slot: Slot, seq: int = 0) -> None:
        """Say in the caller's slot that jobs may have come back in their old places, from this one on (0: anywhere).

        To be called once the statement is over: a look that came before it has not seen them.
        """
        with self._lock:
            # The place first: who reads the new count finds it.
            slot.words[Slot.RELEASED_SEQ] = min(seq, slot.words[Slot.RELEASED_SEQ]) if self._is_uncounted(slot) else seq
            slot.words[Slot.RELEASE_COUNT] += 1
            self.swept = 0.0

    def cap(self, seq: int) -> None:
        """Have no floor above a place."""
        for pair, floor in enumerate(self._low):
            self._low[pair] = min(floor, seq)

    def set(self, low: Sequence[int], release_counts: Sequence[int]) -> None:
        """Set the floors, which reckon with so many hand-backs of each slot."""
        self._low[:] = memoryview(array("q", low))
        self._counted_releases[:] = memoryview(array("q", release_counts))
