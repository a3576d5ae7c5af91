"""The scrub: searches the seqs below the low watermarks, slice by slice, for jobs released without an announcement."""

from collections.abc import Sequence
from time import monotonic

#: Interval between two rounds (seconds).
SCRUB_INTERVAL = 30.0
#: A poll that takes the server longer is expensive (seconds): no worker is woken meanwhile.
EXPENSIVE_SCRUB = 0.005
#: Length of a slice: minimum, initial, maximum.
SLICE_MIN, SLICE_INITIAL, SLICE_MAX = 1 << 10, 1 << 12, 1 << 16


class Scrub:
    """Chooses the seqs below the low watermarks that the next poll scans as well.

    A row may have been edited by hand, or a table restored. An index, however, keeps the entries that an old snapshot
    could still see. There may be any number of dead entries below the watermarks, and no poll may take long to scan
    them. The slice is halved after an expensive poll, and doubled after a cheap one.

    A range that was cheap to scan remains cheap, because nothing is claimed below the watermarks. A round therefore
    begins with a leap over the range of the last leap and the cheap slices after it. An expensive leap is shortened.
    """

    __slots__ = ("_active", "_budget", "_due", "_leap", "_position", "_proven", "_round_end", "_size", "_slice_end")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again: the server may be another one, and the next poll starts at the beginning of the queue."""
        #: The position of the round, the end of the current slice, and the end of the round.
        self._position = self._slice_end = self._round_end = 0
        #: Length of the next leap, of the last cheap leap, and the time left for extending it in this round (seconds).
        self._leap = self._proven = 0
        self._budget = EXPENSIVE_SCRUB
        self._size = SLICE_INITIAL
        #: Whether the current poll includes a slice, and when the next round is due.
        self._active = False
        self._due = monotonic() + SCRUB_INTERVAL

    def mark_cheap(self, seq: int) -> None:
        """Record that a poll from the beginning of the queue to this seq was cheap."""
        self._leap = self._proven = seq

    def begin(self, low: Sequence[int], *, free: bool) -> tuple[int, int]:
        """Return the slice for the next poll: the seqs above the first number, up to the second.

        free: the poll does nothing else that may be expensive.
        """
        self._round_end, self._slice_end = max(low), self._position
        self._active = free and monotonic() >= self._due
        if self._active:
            step = self._leap if self._leaps else self._position + self._size
            self._slice_end = max(self._position, min(step, self._round_end))
        return self._position, self._slice_end

    @property
    def _leaps(self) -> bool:
        return self._position < self._leap

    def advance(self, duration: float) -> None:
        """Continue after the slice; duration is the time that the server needed for the poll (seconds)."""
        if not self._active:
            return
        if duration > EXPENSIVE_SCRUB:
            self._shorten()
        elif self._leaps:
            self._proven = self._leap
        else:
            self._lengthen(duration)
        self._position = self._slice_end
        if self._position >= self._round_end:
            self._position, self._budget, self._due = 0, EXPENSIVE_SCRUB, monotonic() + SCRUB_INTERVAL

    def poll_failed(self) -> None:
        """Handle a failed poll: its slice may have been too long."""
        if self._active:
            self._shorten()

    def _lengthen(self, duration: float) -> None:
        self._budget -= duration
        if self._position == self._leap and self._budget >= 0:
            self._leap = self._slice_end
        if self._slice_end == self._position + self._size:
            self._size = min(2 * self._size, SLICE_MAX)

    def _shorten(self) -> None:
        if not self._leaps:
            self._budget = 0.0
            self._size = max(self._size // 2, SLICE_MIN)
        else:
            self._leap = self._proven = self._proven if self._proven < self._leap else self._leap // 2
