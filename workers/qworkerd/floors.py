"""Floors: from where a sweep has to begin, in memory that the processes of a node share."""

import mmap
import threading
from array import array
from collections.abc import Sequence

from qworkerd.slots import Slot, SlotTable

_WORD = 8
_FIRST = 1


class Floors:
    """A place in the queue for each pair of queue and priority, below which no job can be claimed.

    An index keeps what an old snapshot could still see: a claim from the front walks over every job that has finished
    since, one from the floor over those of the last seconds. The scheduler raises the floors (`scheduler.survey`).
    Whoever hands a job back in its old place says so in its own slot and counts it there: then nobody relies on a floor
    above that place until the scheduler, having read the count, has looked from there. So each of these words has one
    writer, and no lowering is lost to a raising, whatever the order in which processes come to write.
    """

    __slots__ = (
        "_floats",
        "_floors",
        "_lock",
        "_reckoned",
        "_table",
        "_words",
        "heads",
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
        self._reckoned = self._words[_FIRST : _FIRST + slots]
        self._floors = self._words[_FIRST + slots : _FIRST + slots + len(pairs)]
        #: How far the workers of this node have come, for each pair: claims that are no sweep begin here. All of them
        #: write it: one that is too low costs a walk, one that is too high is made up for by the next sweep.
        self.heads = self._words[_FIRST + slots + len(pairs) :]
        self._table = table
        self._lock = threading.Lock()  # of this process: its threads share a slot
        self.queues = [queue for queue, _ in pairs]
        self.priorities = [priority for _, priority in pairs]
        #: The number of each pair.
        self.index = {pair: number for number, pair in enumerate(pairs)}

    @property
    def swept(self) -> float:
        """When a worker of this node last claimed from the floors (monotonic); 0: another one is to do so now."""
        return self._floats[Floors.SWEPT]

    @swept.setter
    def swept(self, now: float) -> None:
        self._floats[Floors.SWEPT] = now

    def front(self) -> list[int]:
        """Return where a sweep begins, for each pair: it finds what comes behind."""
        returned = self.returned()
        floors: list[int] = self._floors.tolist()
        return floors if returned is None else [min(floor, returned - 1) for floor in floors]

    def returned(self) -> int | None:
        """Return the lowest place that was handed back and that the floors do not reckon with yet."""
        if self.returns() == self._reckoned.tolist():
            return None
        return min((slot.words[Slot.RETURNED] for slot in self._table if self._is_news(slot)), default=None)

    def returns(self) -> list[int]:
        """Return the count of each slot's hand-backs. A look that is to reckon with them asks for it before `front`."""
        return [slot.words[Slot.RETURNS] for slot in self._table]

    def _is_news(self, slot: Slot) -> bool:
        return bool(slot.words[Slot.RETURNS] != self._reckoned[slot.index])

    def lower(self, slot: Slot, place: int = 0) -> None:
        """Say in the caller's slot that jobs may have come back in their old places, from this one on (0: anywhere).

        To be called once the statement is over: a look that came before it has not seen them.
        """
        with self._lock:
            # The place first: who reads the new count finds it.
            slot.words[Slot.RETURNED] = min(place, slot.words[Slot.RETURNED]) if self._is_news(slot) else place
            slot.words[Slot.RETURNS] += 1
            self.swept = 0.0

    def fall(self, place: int) -> None:
        """Have no floor above a place."""
        for pair, floor in enumerate(self._floors):
            self._floors[pair] = min(floor, place)

    def set(self, floors: Sequence[int], returns: Sequence[int]) -> None:
        """Set the floors, which reckon with so many hand-backs of each slot."""
        self._floors[:] = memoryview(array("q", floors))
        self._reckoned[:] = memoryview(array("q", returns))
