"""Tracks the low watermarks: for each lane the seq up to which no job can be claimed, determined from each poll."""

from operator import lt
from time import monotonic

from qworker.registry import PollResult
from qworkerd.scheduler.watermarks.releases import Releases
from qworkerd.scheduler.watermarks.scrub import EXPENSIVE_SCRUB, Scrub
from qworkerd.scheduler.watermarks.settled import Settled
from qworkerd.shared.watermarks import Watermarks


class WatermarkTracker:
    """Sets the low watermarks after each poll, as far as no new job can appear below them.

    A watermark rises to just below the first available job of its lane, but at most to the last settled seq
    (`Settled`). Three events lower it: a lingering transaction that was ignored has ended, this node has released jobs
    (`Watermarks.report_release`), or another node has (`Releases`). The scrub finds jobs whose release no node has
    announced.
    """

    def __init__(self, watermarks: Watermarks) -> None:
        self._watermarks = watermarks
        self._settled = Settled()
        self._releases = Releases(watermarks)
        self._scrub = Scrub()
        self.reset()

    def reset(self) -> None:
        """Start again: the server may be another one."""
        #: Whether the last poll lowered the watermarks for a lingering transaction that had ended.
        self._lowered = False
        #: Whether there was no poll yet: the first starts at the beginning of the queue.
        self._first_poll = True
        self._poll_started = monotonic()
        self._settled.reset()
        self._scrub.reset()
        self._releases.reset(self._poll_started)
        self._watermarks.set([0] * len(self._watermarks.queues), self._releases.counts)

    @property
    def released_seq(self) -> int | None:
        """The lowest seq that was released recently, for the other nodes."""
        return self._releases.lowest

    @property
    def has_lingering_writer(self) -> bool:
        """Whether the end of a lingering transaction must be detected soon, because its jobs wait for that."""
        return self._settled.has_lingering

    @property
    def needs_writers(self) -> bool:
        """Whether the next poll has to list the writing transactions."""
        return self._settled.needs_writers

    @property
    def settled_at(self) -> float:
        """Every claim made before this time is committed or never will be (database clock, seconds since 1970)."""
        return self._settled.at

    def begin(self, *, thorough: bool = False) -> tuple[list[int], tuple[int, int]]:
        """Return where the next poll starts in each lane, and the slice of the scrub.

        thorough: the poll also runs the queries for rare cases, which may take long.
        """
        self._poll_started = monotonic()
        self._releases.begin(self._poll_started)
        start = self._watermarks.scan_start()
        return start, self._scrub.begin(start, free=not thorough)

    def advance(self, result: PollResult) -> bool:
        """Set the watermarks according to a poll; return whether to poll again at once."""
        now, expensive = monotonic(), result.duration > EXPENSIVE_SCRUB
        first_poll, self._first_poll = self._first_poll, False
        if result.renewed:
            self._releases.confirm(now)
        was_lowered, self._lowered = self._lowered, self._settled.revert(result)
        settled = self._settled.seq
        low = [settled if seq is None else min(seq - 1, settled) for seq in result.first_available]
        advanced = self._settled.advance(result, self._poll_started)
        poll_again = self._lowered or (advanced and expensive and first_poll)
        if first_poll and not expensive:
            self._scrub.mark_cheap(min(result.last_seq if seq is None else seq - 1 for seq in result.first_available))
        self._scrub.advance(result.duration)
        if self._releases.may_have_missed(result, now):
            low, poll_again = [0] * len(low), True
        elif result.released_seq is not None:
            low = [min(seq, result.released_seq - 1) for seq in low]
            poll_again = poll_again or any(map(lt, low, self._watermarks.scan_start()))
        self._watermarks.set(low, self._releases.counts)
        if was_lowered:
            self._watermarks.swept = 0.0  # the jobs that have become visible need a sweep
        return poll_again

    def poll_failed(self) -> None:
        """Handle a failed poll: a lingering transaction may have ended unnoticed."""
        self._scrub.poll_failed()
        seq = self._settled.before_lingering
        if seq is not None:
            self._watermarks.cap(seq)
