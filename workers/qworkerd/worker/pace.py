"""How much to claim at once, and from where: the batch size and the claim cursors."""

from collections.abc import Iterable
from time import monotonic
from typing import Any

from qworkerd.floors import Floors
from qworkerd.throttle import Throttle

#: How much work a batch should be (seconds): it is acknowledged as a whole, and handed back when it takes longer.
WORK = 0.05
#: After a sweep that was cheaper than this the next is never put off (seconds).
CHEAP = 0.02
#: Sweeps of all workers of a node together may take a tenth of the time.
SHARE = 10
#: At least so often (seconds) a worker of the node looks behind its cursors, if that is affordable.
EVERY = 1.0

_ALPHA = 0.3


class Pace:
    """The batch grows while jobs are short, doubling from one, and shrinks at once when they are long."""

    __slots__ = ("_limit", "_mean", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mean = 0.0
        #: How many jobs the next claim should take.
        self.size = 1

    def note(self, jobs: int, seconds: float) -> None:
        """Take in how long so many jobs took."""
        if not jobs:
            return
        mean = seconds / jobs
        self._mean = mean if mean >= self._mean else self._mean + _ALPHA * (mean - self._mean)
        affordable = int(WORK / self._mean) if self._mean > 0 else self._limit
        self.size = max(1, min(self._limit, affordable, self.size * 2))


class Cursors:
    """Where the next claim of this worker begins, for each pair of queue and priority.

    A claim that begins at the front walks over every dead index entry that some old snapshot still holds; one that
    begins behind the last job claimed does not. What a cursor may have jumped over (a job whose transaction committed
    late, one that was handed back) is found by a sweep, a claim from the floor: whenever there seems to be nothing
    left, and once a second by one worker of the node. Two sweeps in a row that were dear all the same are followed by a
    pause in proportion, so that sweeping takes no more than its share.
    """

    __slots__ = ("_floors", "_sweeps", "_version", "cursors")

    def __init__(self, floors: Floors, processes: int) -> None:
        self._floors = floors
        self._sweeps = Throttle(SHARE * processes, cheap=CHEAP)
        self._version = 0
        self.cursors: list[int] = []
        self.forget()

    def forget(self) -> None:
        """Begin at the front again."""
        self.cursors = [0] * len(self._floors.queues)

    def start(self, *, idle: bool) -> tuple[list[int], bool]:
        """Return the cursors for the next claim, and whether it is a sweep; idle: the last one left nothing behind."""
        now, floors = monotonic(), self._floors
        if floors.version != self._version:
            self._version = floors.version
            self.cursors = list(map(max, self.cursors, floors.front()))
        sweep = now >= self._sweeps.due and (idle or now - floors.swept >= EVERY)
        if not sweep:
            return self.cursors, False
        floors.swept = now
        return floors.front(), True

    def wait(self) -> float:
        """Return in how many seconds a sweep is affordable."""
        return max(0.0, self._sweeps.due - monotonic())

    def advance(self, rows: Iterable[tuple[Any, ...]], *, sweep: bool, took: float) -> None:
        """Take in what a claim got; rows are (id, seq, priority, queue, ...)."""
        if sweep:
            self._sweeps.note(monotonic(), took)
        last: dict[int, int] = {}
        index = self._floors.index
        for row in rows:
            pair = index[row[3], row[2]]
            if row[1] > last.get(pair, -1):
                last[pair] = row[1]
        for pair, seq in last.items():
            self.cursors[pair] = seq
