"""The scrub: goes round the places below the floors, a slice with each look, for jobs that came back unannounced."""

from collections.abc import Sequence
from time import monotonic

#: A round begins so often (seconds).
SCRUB_EVERY = 30.0
#: A look that takes the server longer is dear (seconds): nobody is woken meanwhile.
EXPENSIVE_SCRUB = 0.005
#: So many places are a slice: at least, in the beginning, at most.
SLICE_MIN, SLICE_FIRST, SLICE_MAX = 1 << 10, 1 << 12, 1 << 16


class Scrub:
    """Says which places the next look is to see beside those behind the floors.

    Somebody may edit a row by hand, or restore a table. But an index keeps what an old snapshot could still see: below
    the floors any number of dead entries may lie, and no look may take long to walk over them. A slice is half as large
    after a dear one, twice as large after one that was not.

    Where it was cheap once it stays so, since nothing is claimed below the floors: a round begins with a leap, which is
    longer than the last one by what was cheap behind that. One that is dear is taken back.
    """

    __slots__ = ("_at", "_budget", "_due", "_goes", "_leap", "_proven", "_size", "_to", "_top")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: the server may be another one, and the next look begins at the very front."""
        #: How far the round has come, how far the look under way is to go, and where the round ends.
        self._at = self._to = self._top = 0
        #: How far the next leap goes, how far one that was cheap went, and what may be added in this round (seconds).
        self._leap = self._proven = 0
        self._budget = EXPENSIVE_SCRUB
        self._size = SLICE_FIRST
        #: Whether the look under way takes part; and when the next round is due.
        self._goes = False
        self._due = monotonic() + SCRUB_EVERY

    def trust(self, seq: int) -> None:
        """Take in that it was cheap to walk up to a place from the very front."""
        self._leap = self._proven = seq

    def begin(self, floors: Sequence[int], *, free: bool) -> tuple[int, int]:
        """Return the slice for the next look: the places beyond the first, up to the second.

        free: that look does nothing else that may be dear.
        """
        self._top, self._to = max(floors), self._at
        self._goes = free and monotonic() >= self._due
        if self._goes:
            step = self._leap if self._leaps else self._at + self._size
            self._to = max(self._at, min(step, self._top))
        return self._at, self._to

    @property
    def _leaps(self) -> bool:
        return self._at < self._leap

    def advance(self, took: float) -> None:
        """Go on behind the slice, now that a look with it has taken the server so long (seconds)."""
        if not self._goes:
            return
        if took > EXPENSIVE_SCRUB:
            self._shorten()
        elif self._leaps:
            self._proven = self._leap
        else:
            self._lengthen(took)
        self._at = self._to
        if self._at >= self._top:
            self._at, self._budget, self._due = 0, EXPENSIVE_SCRUB, monotonic() + SCRUB_EVERY

    def poll_failed(self) -> None:
        """Take in that a look could not be had: its slice may have been too long."""
        if self._goes:
            self._shorten()

    def _lengthen(self, took: float) -> None:
        self._budget -= took
        if self._at == self._leap and self._budget >= 0:
            self._leap = self._to
        if self._to == self._at + self._size:
            self._size = min(2 * self._size, SLICE_MAX)

    def _shorten(self) -> None:
        if not self._leaps:
            self._budget = 0.0
            self._size = max(self._size // 2, SLICE_MIN)
        else:
            self._leap = self._proven = self._proven if self._proven < self._leap else self._leap // 2
