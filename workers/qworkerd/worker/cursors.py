"""The claim cursors: from where a worker claims next."""

from collections.abc import Sequence
from time import monotonic
from typing import Any

from qworkerd.process.throttle import Throttle
from qworkerd.shared.watermarks import Watermarks

#: After a sweep that was cheaper than this the next is never put off (seconds).
CHEAP_SWEEP = 0.02
#: Sweeps of all workers of a node together may take a tenth of the time.
SWEEP_SHARE = 10
#: At least so often (seconds) a worker of the node looks behind the heads, if that is affordable.
SWEEP_EVERY = 1.0
#: Announced at most: a row with a place above it was edited by hand, and a word of shared memory has 64 bits.
HIGHEST = 2**63 - 1 - 1_000_000


class Cursors:
    """Where the next claim of this worker begins, for each pair of queue and priority: at the node's head of the pair.

    A claim that begins at the front walks over every dead index entry that some old snapshot still holds; one that
    begins behind the last job claimed does not. The rows of a claim under way are locked, and a second one from the
    same place would step over each of them: so who claims from one pair announces how far it will come, and the next
    begins there. What it has announced and not taken it goes on with itself.

    What a head has jumped over (a job whose transaction committed late, one that was handed back) is found by a sweep,
    a claim from the floor: whenever there seems to be nothing left, and once a second by one worker of the node, which
    alone goes on from there. Two sweeps in a row that were dear all the same are followed by a pause in proportion, so
    that sweeping takes no more than its share.
    """

    __slots__ = ("_bounds", "_floors", "_own", "_pair", "_starts", "_sweeps")

    def __init__(self, floors: Watermarks, processes: int) -> None:
        self._floors = floors
        self._sweeps = Throttle(SWEEP_SHARE * processes, cheap=CHEAP_SWEEP)
        #: Places behind the heads from which this worker goes on.
        self._own: dict[int, int] = {}
        #: From which pair alone the last claim was filled.
        self._pair: int | None = None
        #: Where the claim under way begins, and from where on others look as well.
        self._starts: list[int] = []
        self._bounds: list[int] = []

    def forget(self) -> None:
        """Begin at the front again."""
        self._own.clear()
        self._pair = None
        for pair in range(len(self._floors.claim_positions)):
            self._floors.claim_positions[pair] = 0

    def start(self, size: int, *, idle: bool) -> tuple[list[int], bool]:
        """Return where the next claim of up to so many jobs begins, and whether it is a sweep.

        idle: the last one left nothing behind.
        """
        now, floors = monotonic(), self._floors
        sweep = now >= self._sweeps.due and (idle or now - floors.swept >= SWEEP_EVERY)
        self._starts = front = floors.scan_start()
        self._bounds = heads = floors.claim_positions.tolist()
        if sweep:
            floors.swept = now
            return front, True
        for pair, floor in enumerate(front):
            if heads[pair] < floor:
                heads[pair] = floors.claim_positions[pair] = floor
        self._starts = [max(self._own.get(pair, head), front[pair]) for pair, head in enumerate(heads)]
        sole = self._pair
        if sole is not None and sole not in self._own:
            heads[sole] = floors.claim_positions[sole] = min(self._starts[sole], HIGHEST) + size
        return self._starts, False

    def wait(self) -> float:
        """Return in how many seconds a sweep is affordable."""
        return max(0.0, self._sweeps.due - monotonic())

    def advance(self, rows: Sequence[tuple[Any, ...]], size: int, *, sweep: bool, took: float) -> None:
        """Take in what a claim of up to so many jobs got, in seconds; rows are (id, seq, priority, queue, ...)."""
        if sweep:
            self._sweeps.note(monotonic(), took)
        last: dict[int, int] = {}
        index = self._floors.index
        for row in rows:
            pair = index[row[3], row[2]]
            if row[1] > last.get(pair, -1):
                last[pair] = row[1]
        if len(rows) < size:
            self._take_all(last, sweep=sweep)
        else:
            self._take_some(last, sweep=sweep)

    def fail(self, *, sweep: bool) -> None:
        """Take in that nobody knows what the claim got: what it has announced is still to be looked for."""
        self._take_some({}, sweep=sweep)

    def _take_all(self, last: dict[int, int], *, sweep: bool) -> None:
        """There is nothing behind the last jobs of each pair: a head that was announced further has gone too far."""
        heads = self._floors.claim_positions
        for pair in self._short(last, sweep=sweep) - self._own.keys():
            heads[pair] = min(heads[pair], self._starts[pair])
        for pair, seq in last.items():
            heads[pair] = seq
        self._own.clear()
        self._pair = None

    def _take_some(self, last: dict[int, int], *, sweep: bool) -> None:
        """There may be more between the last jobs of each pair and the place from where on others look as well."""
        heads = self._floors.claim_positions
        for pair in self._short(last, sweep=sweep):
            self._own[pair] = self._starts[pair]
        for pair, seq in last.items():
            if seq < self._bounds[pair]:
                self._own[pair] = seq
            else:
                self._own.pop(pair, None)
            # A head that has come back to before this claim says that there was nothing then: now there may be.
            if self._starts[pair] <= heads[pair] < seq:
                heads[pair] = seq
        self._pair = next(iter(last)) if len(last) == 1 else None

    def _short(self, last: dict[int, int], *, sweep: bool) -> set[int]:
        """Return the pairs that the claim was to take from before others do, and got nothing of."""
        if sweep:
            return set()
        return {pair for pair, start in enumerate(self._starts) if start < self._bounds[pair] and pair not in last}
