"""The claim cursors: where a worker's next claim starts in each lane."""

from collections.abc import Sequence
from time import monotonic

from qworker.claims import ClaimedJob
from qworkerd.process.throttle import Throttle
from qworkerd.shared.watermarks import Watermarks

#: A sweep cheaper than this does not delay the next one (seconds).
CHEAP_SWEEP = 0.02
#: After expensive sweeps the next one follows after this multiple of their duration, for all workers of a node
#: together.
SWEEP_FACTOR = 10
#: Interval at which one worker of the node sweeps, unless sweeps are expensive (seconds).
SWEEP_INTERVAL = 1.0
#: The highest position stored: a row with a larger seq was edited by hand, and a word of shared memory has 64 bits.
MAX_POSITION = 2**63 - 1 - 1_000_000


class Cursors:
    """Determines where this worker's next claim starts in each lane: usually at the node's claim position of the lane.

    A claim that starts at the beginning of the queue scans every dead index entry that some old snapshot keeps; one
    that starts behind the last claimed job does not. Rows being claimed are locked, so a second claim from the same
    position would have to skip each of them. A worker that claims from a single lane therefore advances the shared
    position by its batch size before it claims, and the next worker starts from there. If the claim returns fewer rows,
    the same worker picks up the rest.

    A claim position may pass a job whose transaction commits late, or that is released. A sweep, which is a claim from
    the low watermark, finds it: whenever the queue seems to be empty, and once a second by one worker of the node,
    which alone continues from there. After two expensive sweeps in a row the next one is delayed in proportion, so that
    sweeps take no more than their share of the time.
    """

    __slots__ = ("_bounds", "_only_lane", "_own", "_starts", "_sweeps", "_watermarks")

    def __init__(self, watermarks: Watermarks, processes: int) -> None:
        self._watermarks = watermarks
        self._sweeps = Throttle(SWEEP_FACTOR * processes, cheap=CHEAP_SWEEP)
        #: Seqs behind the claim positions from which this worker continues, by lane.
        self._own: dict[int, int] = {}
        #: The only lane from which the last claim was filled.
        self._only_lane: int | None = None
        #: Where the current claim starts in each lane, and from where other workers claim as well.
        self._starts: list[int] = []
        self._bounds: list[int] = []

    def reset(self) -> None:
        """Start at the beginning of the queue again."""
        self._own.clear()
        self._only_lane = None
        for lane in range(len(self._watermarks.claim_positions)):
            self._watermarks.claim_positions[lane] = 0

    def start(self, size: int, *, idle: bool) -> tuple[list[int], bool]:
        """Return where the next claim of up to `size` jobs starts in each lane, and whether it is a sweep.

        idle: the last claim found no more jobs.
        """
        now, watermarks = monotonic(), self._watermarks
        sweep = now >= self._sweeps.due and (idle or now - watermarks.swept >= SWEEP_INTERVAL)
        self._starts = low = watermarks.scan_start()
        self._bounds = positions = watermarks.claim_positions.tolist()
        if sweep:
            watermarks.swept = now
            return low, True
        for lane, seq in enumerate(low):
            if positions[lane] < seq:
                positions[lane] = watermarks.claim_positions[lane] = seq
        self._starts = [max(self._own.get(lane, position), low[lane]) for lane, position in enumerate(positions)]
        only_lane = self._only_lane
        if only_lane is not None and only_lane not in self._own:
            positions[only_lane] = watermarks.claim_positions[only_lane] = (
                min(self._starts[only_lane], MAX_POSITION) + size
            )
        return self._starts, False

    def next_sweep_in(self) -> float:
        """Return the time until the next sweep is allowed (seconds)."""
        return max(0.0, self._sweeps.due - monotonic())

    def advance(self, rows: Sequence[ClaimedJob], size: int, *, sweep: bool, duration: float) -> None:
        """Process the result of a claim and its duration (seconds)."""
        if sweep:
            self._sweeps.record(monotonic(), duration)
        last: dict[int, int] = {}
        index = self._watermarks.index
        for row in rows:
            lane = index[row.queue, row.priority]
            if row.seq > last.get(lane, -1):
                last[lane] = row.seq
        if len(rows) < size:
            self._on_exhausted(last, sweep=sweep)
        else:
            self._on_more(last, sweep=sweep)

    def fail(self, *, sweep: bool) -> None:
        """Handle a failed claim: it may have claimed any of the jobs in the range that it has reserved."""
        self._on_more({}, sweep=sweep)

    def _on_exhausted(self, last: dict[int, int], *, sweep: bool) -> None:
        """Handle a claim that found no more jobs: positions that were advanced too far are moved back."""
        positions = self._watermarks.claim_positions
        for lane in self._lanes_without_job(last, sweep=sweep) - self._own.keys():
            positions[lane] = min(positions[lane], self._starts[lane])
        for lane, seq in last.items():
            positions[lane] = seq
        self._own.clear()
        self._only_lane = None

    def _on_more(self, last: dict[int, int], *, sweep: bool) -> None:
        """Handle a claim that may have left jobs between the last one of each lane and the shared position."""
        positions = self._watermarks.claim_positions
        for lane in self._lanes_without_job(last, sweep=sweep):
            self._own[lane] = self._starts[lane]
        for lane, seq in last.items():
            if seq < self._bounds[lane]:
                self._own[lane] = seq
            else:
                self._own.pop(lane, None)
            # Another worker has moved the position back to before this claim because it found no jobs then.
            if self._starts[lane] <= positions[lane] < seq:
                positions[lane] = seq
        self._only_lane = next(iter(last)) if len(last) == 1 else None

    def _lanes_without_job(self, last: dict[int, int], *, sweep: bool) -> set[int]:
        """Return the lanes in which the claim had a separate range but found no job."""
        if sweep:
            return set()
        return {lane for lane, start in enumerate(self._starts) if start < self._bounds[lane] and lane not in last}
