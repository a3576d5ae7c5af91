"""Track the low watermarks: the seq up to which no job of a lane can be claimed, found out with each poll."""

from collections import deque
from operator import lt
from time import monotonic

from qworker.registry import PREPARED, PollResult
from qworkerd.scheduler.scrub import EXPENSIVE_SCRUB, Scrub
from qworkerd.shared.watermarks import Watermarks

#: A transaction that has been writing for longer no longer holds down the watermarks (seconds). They are lowered when
#: it ends.
LINGERING_AFTER = 3.0
#: How long a release is announced to the other nodes, and the time between two polls after which a node may have missed
#: an announcement and starts at the beginning (seconds).
ANNOUNCE_RELEASE_FOR, RELEASE_MISSED_AFTER = 5.0, 4.0


class WatermarkTracker:
    """Raises the low watermarks after each poll, as far as no new job can appear below them.

    A transaction draws a seq before its job becomes visible, and holds a lock on the table from before it draws until
    it ends. Once every transaction that held the lock at some time has ended, each seq drawn before that time is
    visible or will never be: it is settled. A watermark rises to just below the first available job of its lane, and at
    most to the last settled seq.

    A transaction that lingers would hold down the watermarks, and every sweep would scan all the jobs that have
    finished since. Its rows are not visible before it ends, so the watermarks rise without it. When it has ended, they
    are lowered to the seq that was settled when it began to linger.

    Jobs released by this node lower the watermarks (`Watermarks.report_release`). Other nodes announce the jobs that
    they release with their heartbeats; a dead node may have announced nothing. The scrub finds whatever no node has
    announced.
    """

    def __init__(self, watermarks: Watermarks) -> None:
        self._watermarks = watermarks
        self._scrub = Scrub()
        #: The lowest seq released that no heartbeat has announced yet, and those announced, with the time.
        self._unannounced: int | None = None
        self._announced: deque[tuple[float, int]] = deque()
        self.reset()

    def reset(self) -> None:
        """Start again: the server may be another one."""
        #: No job with a seq up to this one can still appear, as of the poll before the last.
        self._settled = 0
        #: Every claim made before this time is committed or never will be (the database's clock, seconds since 1970).
        self.settled_at = 0.0
        #: The last seq drawn at an earlier poll, the time of the poll before, the transactions that were writing and
        #: have not ended, and since when they are waited for (monotonic).
        self._pending: tuple[int, float, set[str], float] | None = None
        #: The lingering transactions, with the seq and the time that were settled when they began to linger.
        self._lingering: dict[str, tuple[int, float]] = {}
        #: Whether the last poll lowered the watermarks.
        self._lowered = False
        self._polled_at = 0.0
        #: Whether there was no poll yet: the first starts at the beginning of the queue.
        self._first_poll = True
        self._scrub.reset()
        #: Whether the next poll has to list the writing transactions.
        self.needs_writers = True
        self._nodes: frozenset[int] = frozenset()
        self._poll_started = self._previous_poll_started = monotonic()
        self._release_counts = self._watermarks.release_counts()
        self._collect_releases()
        self._watermarks.set([0] * len(self._watermarks.queues), self._release_counts)

    @property
    def released_seq(self) -> int | None:
        """The lowest seq that was released recently, for the other nodes."""
        announced = [seq for _, seq in self._announced]
        return min(announced if self._unannounced is None else [*announced, self._unannounced], default=None)

    @property
    def has_lingering_writer(self) -> bool:
        """Whether a transaction has been writing for long: its rows are visible once a poll finds that it has ended."""
        return bool(self._lingering)

    def begin(self, *, sweep: bool = False) -> tuple[list[int], tuple[int, int]]:
        """Return where the next poll starts in each lane, and the slice of the scrub.

        sweep: the poll also runs the queries for rare cases, and may take long for that.
        """
        self._poll_started = now = monotonic()
        self._release_counts = self._watermarks.release_counts()
        self._collect_releases()
        while self._announced and self._announced[0][0] < now - ANNOUNCE_RELEASE_FOR:
            self._announced.popleft()
        start = self._watermarks.scan_start()
        return start, self._scrub.begin(start, free=not sweep)

    def _collect_releases(self) -> None:
        """Record the jobs released here since the last poll, before the watermarks account for them."""
        released = self._watermarks.released_seq()
        if released is not None:
            self._unannounced = released if self._unannounced is None else min(released, self._unannounced)

    def advance(self, result: PollResult) -> bool:
        """Raise the watermarks to what a poll has shown; return whether to poll again at once."""
        now = monotonic()
        if result.renewed and self._unannounced is not None:
            self._announced.append((now, self._unannounced))
            self._unannounced = None
        was_lowered, self._lowered = self._lowered, self._revert_to_lingering(result)
        low = [self._settled if start is None else min(start - 1, self._settled) for start in result.first_available]
        lowered_settled_at = self.settled_at
        expensive, first_poll, self._first_poll = result.took > EXPENSIVE_SCRUB, self._first_poll, False
        poll_again = (self._settle(result) and expensive and first_poll) or self._lowered
        if self._lowered:
            self.settled_at = lowered_settled_at  # until the next poll: the lingering transaction may have been a claim
        if first_poll and not expensive:
            self._scrub.trust(min(result.last_seq if start is None else start - 1 for start in result.first_available))
        self._scrub.advance(result.took)
        before, self._previous_poll_started = self._previous_poll_started, self._poll_started
        if now - before > RELEASE_MISSED_AFTER or self._nodes - result.heartbeats.keys():
            low, poll_again = [0] * len(low), True
        elif result.released_seq is not None:
            low = [min(seq, result.released_seq - 1) for seq in low]
            poll_again = poll_again or any(map(lt, low, self._watermarks.scan_start()))
        self._nodes = frozenset(result.heartbeats)
        self._watermarks.set(low, self._release_counts)
        if was_lowered:
            self._watermarks.swept = 0.0  # the jobs that have become visible need a sweep
        return poll_again

    def poll_failed(self) -> None:
        """Handle a failed poll: a lingering transaction may have ended unnoticed."""
        self._scrub.poll_failed()
        if self._lingering:
            self._watermarks.cap(min(settled for settled, _ in self._lingering.values()))

    def _revert_to_lingering(self, result: PollResult) -> bool:
        """Return to what was settled before the lingering transactions that have ended; tell if there were any."""
        gone = self._lingering.keys() - set(result.writers)
        for writer in gone:
            settled, at = self._lingering.pop(writer)
            self._settled, self.settled_at = min(settled, self._settled), min(at, self.settled_at)
        return bool(gone)

    def _settle(self, result: PollResult) -> bool:
        """Find out up to which seq everything is settled; tell whether that is further than before.

        The result is for the next poll: this one may have started before it was settled.
        """
        before, writers = self._settled, set(result.writers) - self._lingering.keys()
        if self._pending is not None and PREPARED not in writers:  # a prepared transaction goes on under another id
            settled, at, remaining, since = self._pending
            remaining &= writers
            if self._poll_started - since > LINGERING_AFTER:
                self._lingering |= dict.fromkeys(remaining, (self._settled, self.settled_at))
                writers -= remaining
                remaining.clear()
            if not remaining:
                self._settled, self.settled_at, self._pending = settled, at, None
        if self._pending is None and self.needs_writers:
            if writers:
                self._pending = result.last_seq, self._polled_at, writers, self._poll_started
            else:
                self._settled, self.settled_at = result.last_seq, self._polled_at
        self._polled_at = result.at
        self.needs_writers = (
            bool(self._pending or self._lingering) or result.last_seq > self._settled or result.has_running
        )
        return self._settled > before
