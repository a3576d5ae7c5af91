"""What the processes of a node have counted, in memory that they share: counters and histograms for each series.

Each process has a region, which its replacement continues: counts never fall. A region has one writer. Aligned 64-bit
stores do not tear, so a reader needs no lock, and a process that dies while it counts loses at most one increment.
"""

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum, auto
from operator import add

from qworker.histogram import BUCKETS, MILLISECOND, bucket_of, lower_bound
from qworkerd.shared.cause import Cause
from qworkerd.shared.series import FIRST, MAX_SERIES, PROCESS, SeriesNumbers

_WORD = 8
#: Most of the memory is never written, and takes no space.
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


class Counter(IntEnum):
    """The counters of a series. The first fifteen are the ends of attempts; each attempt has one of them."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:  # noqa: ARG004
        return count

    SUCCEEDED = auto()
    #: Raised an exception, and is followed by another attempt; or by none.
    RETRIED = auto()
    RAISED = auto()
    TIMED_OUT = auto()
    #: The worker died: see `Cause`.
    OOM = auto()
    SIGNALLED = auto()
    EXITED = auto()
    STALLED = auto()
    LEASE_LOST = auto()
    SUPERVISOR_LOST = auto()
    NODE_LOST = auto()
    INTERRUPTED = auto()
    SNOOZED = auto()
    UNKNOWN_TASK = auto()
    CANCELLED_ATTEMPTS = auto()
    #: Jobs that reached these states; those that completed are the attempts that succeeded.
    FAILED = auto()
    CANCELLED = auto()
    DISCARDED = auto()
    #: Of the jobs that were cancelled, those that expired.
    EXPIRED = auto()
    #: Claimed jobs that were released before they were started.
    RELEASED = auto()
    #: Sums of run and wait times (microseconds).
    RUN = auto()
    WAIT = auto()


class ProcessCounter(IntEnum):
    """The counters of the series PROCESS, whose histograms are of the durations of claims and of acknowledgements."""

    #: Claims that found jobs; and those that found none.
    CLAIMS = 0
    EMPTY_CLAIMS = 1
    #: Writes that were fenced off, because the claim had ended.
    REFUSED = 2
    #: Children that died unexpectedly: one counter for each of DEATHS, written by the supervisor.
    DEATHS = 3
    #: Processor time of the children that have ended (microseconds).
    CPU = 12
    #: Other nodes that this node has declared dead; written by the scheduler.
    NODES_LOST = 13
    #: Sums of durations (microseconds): the place is that of Counter.RUN and WAIT.
    CLAIM_TIME = int(Counter.RUN)
    ACKNOWLEDGE_TIME = int(Counter.WAIT)


#: The causes by which deaths of children are counted.
DEATHS = (
    Cause.TIMEOUT, Cause.STALLED, Cause.LEASE, Cause.SUPERVISOR_LOST, Cause.SHUTDOWN, Cause.CANCELLED, Cause.OOM,
    Cause.SIGNAL, Cause.EXIT,
)  # fmt: skip

#: The words of a series: counters, then the histograms of run and wait times.
COUNTERS = 24
RUN_BUCKETS, WAIT_BUCKETS = COUNTERS, COUNTERS + BUCKETS
CELLS = COUNTERS + 2 * BUCKETS
#: The words of a region.
REGION = MAX_SERIES * CELLS

#: A run below this is counted in the first bucket (seconds): the history stores 0 for it.
INSTANT = 0.001

_BOUNDS = [lower_bound(bucket) for bucket in range(BUCKETS)]
_MICRO = 1e6
#: The limit of sums of durations, and of what is read from any cell.
MAX_SUM = 1 << 62


def cells(regions: int) -> "memoryview[int]":
    """Return the memory of regions, as integers."""
    return memoryview(mmap.mmap(-1, regions * REGION * _WORD, flags=_FLAGS)).cast("q")


class Tally:
    """The regions of a node: those of the scheduler, of each worker, and of the supervisor."""

    __slots__ = ("_cells", "numbers", "seats")

    def __init__(self, seats: int) -> None:
        self.seats = seats
        #: The numbers of the series.
        self.numbers = SeriesNumbers()
        self._cells = cells(seats)

    def writer(self, seat: int) -> "TallyWriter":
        """Return the writer of a region: 0 is the scheduler's, the last one the supervisor's.

        What the code of a handler has damaged is cleared: a cell that overflows would end each replacement, too.
        """
        region = self._cells[seat * REGION : (seat + 1) * REGION]
        for at in range((FIRST + len(self.numbers.names())) * CELLS):
            if not 0 <= region[at] <= MAX_SUM:
                region[at] = 0
        return TallyWriter(self.numbers, region)

    def read(self, series: int) -> list[int]:
        """Return the cells of a series, added over all processes."""
        at, found = series * CELLS, [0] * CELLS
        for seat in range(self.seats):
            region = self._cells[seat * REGION + at : seat * REGION + at + CELLS]
            if any(region):
                found = list(map(add, found, region))
        if min(found) < 0 or max(found) > MAX_SUM:  # damaged, see above
            found = [min(max(cell, 0), MAX_SUM) for cell in found]
        return found

    def total(self, series: int, counter: int) -> int:
        """Return a counter of a series, added over all processes."""
        at = series * CELLS + counter
        return sum(self._cells[seat * REGION + at] for seat in range(self.seats))


class TallyWriter:
    """Counts in the region of this process; its threads share it."""

    __slots__ = ("_cells", "_lock", "numbers")

    def __init__(self, numbers: SeriesNumbers, region: "memoryview[int]") -> None:
        self.numbers = numbers
        self._cells = region
        self._lock = threading.Lock()

    def count(self, series: int, counter: int, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._cells[series * CELLS + counter] += number

    def succeed(self, series: int, waits: Sequence[float], runs: Iterable[float]) -> None:
        """Count attempts that succeeded: how long their jobs waited, and the run times that were recorded (seconds)."""
        counted, at = len(waits), series * CELLS
        shortest, longest = bucket_of(min(waits)), bucket_of(max(waits))
        with self._lock:
            memory = self._cells
            memory[at + Counter.SUCCEEDED] += counted
            if shortest == longest:  # the usual case behind a backlog
                memory[at + WAIT_BUCKETS + shortest] += counted
            else:
                for bucket, number in _spread(waits, shortest, longest):
                    memory[at + WAIT_BUCKETS + bucket] += number
            self._add_time(at + Counter.WAIT, sum(waits))
            instant = counted
            for run in runs:
                if run >= INSTANT:
                    memory[at + RUN_BUCKETS + bucket_of(run)] += 1
                    instant -= 1
                self._add_time(at + Counter.RUN, run)
            memory[at + RUN_BUCKETS] += instant

    def attempt(self, series: int, counter: Counter, wait: float | None, run: float | None) -> None:
        """Count an attempt, and how long its job waited and ran if that is known (seconds)."""
        at, memory = series * CELLS, self._cells
        with self._lock:
            memory[at + counter] += 1
            if wait is not None:
                memory[at + WAIT_BUCKETS + bucket_of(wait)] += 1
                self._add_time(at + Counter.WAIT, wait)
            if run is not None:
                bucket = bucket_of(run)
                memory[at + RUN_BUCKETS + (bucket if bucket >= MILLISECOND else 0)] += 1
                self._add_time(at + Counter.RUN, run)

    def claimed(self, jobs: int, seconds: float) -> None:
        """Count a claim of this process."""
        self.count(PROCESS, ProcessCounter.CLAIMS if jobs else ProcessCounter.EMPTY_CLAIMS)
        self._observe(RUN_BUCKETS, ProcessCounter.CLAIM_TIME, seconds)

    def acknowledged(self, seconds: float) -> None:
        """Count a write of this process."""
        self._observe(WAIT_BUCKETS, ProcessCounter.ACKNOWLEDGE_TIME, seconds)

    def died(self, cause: str, processor: float, *, expected: bool) -> None:
        """Count a child that has ended, and its processor time (seconds)."""
        if not expected:
            self.count(PROCESS, ProcessCounter.DEATHS + DEATHS.index(Cause.of(cause)))
        with self._lock:
            self._add_time(PROCESS * CELLS + ProcessCounter.CPU, processor)

    def _observe(self, histogram: int, total: int, seconds: float) -> None:
        at = PROCESS * CELLS
        with self._lock:
            self._cells[at + histogram + bucket_of(seconds)] += 1
            self._add_time(at + total, seconds)

    def _add_time(self, cell: int, seconds: float) -> None:
        """Add to a sum, which must not overflow: a time edited by hand may make the duration infinite or no number."""
        self._cells[cell] = min(self._cells[cell] + int(min(1e9, max(0.0, seconds)) * _MICRO), MAX_SUM)


def _spread(durations: Iterable[float], shortest: int, longest: int) -> Iterator[tuple[int, int]]:
    """Yield how many durations are in each bucket: sorting them is faster than computing the bucket of each."""
    ordered, at = sorted(durations), 0
    for bucket in range(shortest, longest):
        end = bisect_left(ordered, _BOUNDS[bucket + 1], at)
        if end > at:
            yield bucket, end - at
        at = end
    yield longest, len(ordered) - at
