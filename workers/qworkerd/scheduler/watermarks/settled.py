"""The settled seq: no transaction that is still open, and none that begins later, can add a job up to it."""

from qworker.registry import PREPARED, PollResult

#: A transaction that has been writing for longer is not waited for (seconds): it lingers.
LINGERING_AFTER = 3.0


class Settled:
    """Determines from consecutive polls which transactions have ended, and which seqs are therefore settled.

    A transaction gets a seq before its job becomes visible. It holds a lock on the table from before it gets the seq
    until it ends. When all transactions that held the lock at some time have ended, the job of each seq assigned before
    that time is visible or never will be: the seq is settled.

    A transaction that lingers is ignored, because its rows are not visible before it ends. When it has ended, the
    settled seq returns to the one at the time when the transaction began to linger.
    """

    __slots__ = ("_lingering", "_pending", "_polled_at", "_reverted", "at", "needs_writers", "seq")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again: the server may be another one."""
        #: No job with a seq up to this one can still appear, as of the poll before the last.
        self.seq = 0
        #: Every claim made before this time is committed or never will be (the database's clock, seconds since 1970).
        self.at = 0.0
        #: Whether the next poll has to list the writing transactions.
        self.needs_writers = True
        #: The last seq assigned at an earlier poll, the time of the poll before it, the transactions that were writing
        #: then and have not ended, and since when they are waited for (monotonic).
        self._pending: tuple[int, float, set[str], float] | None = None
        #: The lingering transactions, with the seq and the time that were settled when they began to linger.
        self._lingering: dict[str, tuple[int, float]] = {}
        self._polled_at = 0.0
        #: Whether the last call of `revert` has found transactions that had ended.
        self._reverted = False

    @property
    def has_lingering(self) -> bool:
        """Whether a transaction has been writing for long: its rows are visible once a poll finds that it has ended."""
        return bool(self._lingering)

    @property
    def before_lingering(self) -> int | None:
        """The seq to which `revert` may have to return; None if no transaction lingers."""
        return min((seq for seq, _ in self._lingering.values()), default=None)

    def revert(self, result: PollResult) -> bool:
        """Return to the seq settled before the lingering transactions that have ended; true if there were any."""
        gone = self._lingering.keys() - set(result.writers)
        for writer in gone:
            seq, at = self._lingering.pop(writer)
            self.seq, self.at = min(seq, self.seq), min(at, self.at)
        self._reverted = bool(gone)
        return self._reverted

    def advance(self, result: PollResult, started: float) -> bool:
        """Determine the seq up to which all seqs are settled; return whether it has increased.

        It is valid for the next poll, because this one may have read the table before it was settled. `started` is when
        the poll was started (monotonic).
        """
        before, reverted_at, writers = self.seq, self.at, set(result.writers) - self._lingering.keys()
        if self._pending is not None and PREPARED not in writers:  # a prepared transaction continues under another id
            seq, at, remaining, since = self._pending
            remaining &= writers
            if started - since > LINGERING_AFTER:
                self._lingering |= dict.fromkeys(remaining, (self.seq, self.at))
                writers -= remaining
                remaining.clear()
            if not remaining:
                self.seq, self.at, self._pending = seq, at, None
        if self._pending is None and self.needs_writers:
            if writers:
                self._pending = result.last_seq, self._polled_at, writers, started
            else:
                self.seq, self.at = result.last_seq, self._polled_at
        if self._reverted:
            self.at = reverted_at  # until the next poll: the lingering transaction may have been a claim
        self._polled_at = result.at
        self.needs_writers = bool(self._pending or self._lingering) or result.last_seq > self.seq or result.has_running
        return self.seq > before
