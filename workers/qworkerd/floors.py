"""Floors: from where a sweep has to begin, in memory that the processes of a node share."""

import mmap
import threading
from array import array
from collections.abc import Sequence
from time import monotonic

from qworkerd.slots import Slot, SlotTable

_WORD = 8
_FIRST = 2


class Floors:
    """A place in the queue for each pair of queue and priority, below which no job can be claimed.

    An index keeps what an old snapshot could still see: a claim from the front walks over every job that has finished
    since, one from the floor over those of the last seconds. The scheduler raises the floors (`scheduler.survey`).
    Whoever hands a job back in its old place says so in its own slot: then nobody relies on a floor above that place
    until the scheduler has looked from there. So each word has one writer, and no lowering is lost to a raising.
    """

    __slots__ = ("_floats", "_lock", "_table", "_words", "index", "priorities", "queues")

    AS_OF, SWEPT = range(_FIRST)

    def __init__(self, table: SlotTable, queues: Sequence[str]) -> None:
        pairs = [(queue, priority) for queue in queues for priority in range(10)]
        memory = memoryview(mmap.mmap(-1, _WORD * (_FIRST + len(pairs))))[: _WORD * (_FIRST + len(pairs))]
        self._words, self._floats = memory.cast("q"), memory.cast("d")
        self._table = table
        self._lock = threading.Lock()  # of this process: its threads share a slot
        self.queues = [queue for queue, _ in pairs]
        self.priorities = [priority for _, priority in pairs]
        #: The number of each pair.
        self.index = {pair: number for number, pair in enumerate(pairs)}

    @property
    def as_of(self) -> float:
        """Until when the floors reckon with what was handed back (monotonic)."""
        return self._floats[Floors.AS_OF]

    @property
    def swept(self) -> float:
        """When a worker of this node last claimed from the floors (monotonic)."""
        return self._floats[Floors.SWEPT]

    @swept.setter
    def swept(self, now: float) -> None:
        self._floats[Floors.SWEPT] = now

    def front(self) -> list[int]:
        """Return where a sweep begins, for each pair: it finds what comes behind."""
        returned = self.returned()
        floors: list[int] = self._words[_FIRST:].tolist()
        return floors if returned is None else [min(floor, returned - 1) for floor in floors]

    def returned(self) -> int | None:
        """Return the lowest place that was handed back and that the floors do not reckon with yet."""
        as_of = self._floats[Floors.AS_OF]
        return min((s.words[Slot.RETURNED] for s in self._table if s.floats[Slot.RETURNED_AT] > as_of), default=None)

    def lower(self, slot: Slot, place: int = 0) -> None:
        """Say in the caller's slot that jobs may have come back in their old places, from this one on (0: anywhere).

        To be called once the statement is over: a look that came before it has not seen them.
        """
        with self._lock:
            if slot.floats[Slot.RETURNED_AT] > self._floats[Floors.AS_OF]:
                place = min(place, slot.words[Slot.RETURNED])
            slot.words[Slot.RETURNED] = place
            slot.floats[Slot.RETURNED_AT] = monotonic()

    def set(self, floors: Sequence[int], as_of: float) -> None:
        """Set the floors, which reckon with all that was said to be handed back until then (monotonic)."""
        self._words[_FIRST:] = memoryview(array("q", floors))
        self._floats[Floors.AS_OF] = as_of
