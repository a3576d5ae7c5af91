"""Low watermarks and claim positions of the lanes, in memory that the processes of a node share."""

import mmap
import threading
from array import array
from collections.abc import Sequence

from qworker.options import PRIORITIES
from qworkerd.shared.slots import Slot, SlotTable

_WORD = 8
_FIXED_WORDS = 1


class Watermarks:
    """For each lane (a pair of queue and priority), a seq at or below which no job can be claimed.

    An index keeps the entries that an old snapshot could still see. A claim from the beginning of the queue scans every
    job that has finished since; a claim from the watermark scans those of the last seconds. The scheduler raises the
    watermarks (`scheduler.watermarks`). A process that releases a job stores its seq in its own slot and then
    increments a counter. Readers trust no watermark above that seq until the scheduler has seen the counter and scanned
    from there. Every word has a single writer, so a concurrent raise cannot lose a lowering.
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

    (SWEPT,) = range(_FIXED_WORDS)

    def __init__(self, table: SlotTable, queues: Sequence[str], priorities: range = PRIORITIES) -> None:
        lanes = [(queue, priority) for queue in queues for priority in priorities]
        slots = len(table.slots)
        memory = memoryview(mmap.mmap(-1, _WORD * (_FIXED_WORDS + slots + 2 * len(lanes))))
        self._words, self._floats = memory.cast("q"), memory.cast("d")
        #: The release counts of the slots that the watermarks account for; and the watermarks.
        self._counted_releases = self._words[_FIXED_WORDS : _FIXED_WORDS + slots]
        self._low = self._words[_FIXED_WORDS + slots : _FIXED_WORDS + slots + len(lanes)]
        #: The position of this node's workers in each lane, where claims other than sweeps start. All workers write it:
        #: a position that is too low costs a scan, and the next sweep corrects one that is too high.
        self.claim_positions = self._words[_FIXED_WORDS + slots + len(lanes) :]
        self._table = table
        self._lock = threading.Lock()  # the threads of a process share a slot
        self.queues = [queue for queue, _ in lanes]
        self.priorities = [priority for _, priority in lanes]
        #: The number of each lane.
        self.index = {lane: number for number, lane in enumerate(lanes)}

    @property
    def swept(self) -> float:
        """When a worker of this node last swept (monotonic); 0 requests another sweep now."""
        return self._floats[Watermarks.SWEPT]

    @swept.setter
    def swept(self, now: float) -> None:
        self._floats[Watermarks.SWEPT] = now

    def scan_start(self) -> list[int]:
        """Return the seq behind which a sweep starts, for each lane."""
        released = self.released_seq()
        low: list[int] = self._low.tolist()
        return low if released is None else [min(seq, released - 1) for seq in low]

    def released_seq(self) -> int | None:
        """Return the lowest seq released that the watermarks do not account for yet."""
        if self.release_counts() == self._counted_releases.tolist():
            return None
        return min((slot.words[Slot.RELEASED_SEQ] for slot in self._table if self._is_uncounted(slot)), default=None)

    def release_counts(self) -> list[int]:
        """Return the release count of each slot; a poll that accounts for them reads this before `scan_start`."""
        return [slot.words[Slot.RELEASE_COUNT] for slot in self._table]

    def _is_uncounted(self, slot: Slot) -> bool:
        return bool(slot.words[Slot.RELEASE_COUNT] != self._counted_releases[slot.index])

    def report_release(self, slot: Slot, seq: int = 0) -> None:
        """Record in the caller's slot that jobs with this seq or higher may have been released (0: any job).

        Call this after the statement: a poll that came before it has not seen the jobs.
        """
        with self._lock:
            # Store the seq before the count, so that a reader of the new count finds it.
            slot.words[Slot.RELEASED_SEQ] = min(seq, slot.words[Slot.RELEASED_SEQ]) if self._is_uncounted(slot) else seq
            slot.words[Slot.RELEASE_COUNT] += 1
            self.swept = 0.0

    def cap(self, seq: int) -> None:
        """Lower all watermarks that are above a seq."""
        for lane, low in enumerate(self._low):
            self._low[lane] = min(low, seq)

    def set(self, low: Sequence[int], release_counts: Sequence[int]) -> None:
        """Set the watermarks, which account for the given release counts."""
        self._low[:] = memoryview(array("q", low))
        self._counted_releases[:] = memoryview(array("q", release_counts))
