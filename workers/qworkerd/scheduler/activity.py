"""Knows whether anything has happened lately: what costs statements is done less often in a quiet cluster."""

from time import monotonic

from qworker.registry import PollResult
from qworkerd.shared.series import PROCESS
from qworkerd.shared.tally import ProcessCounter, Tally

#: Time without activity after which the cluster is quiet (seconds).
QUIET_AFTER = 30.0


class Activity:
    """What this node sees: its own claims, and the jobs that anybody enqueues.

    Other nodes may claim jobs of other queues meanwhile. They are active then, and do what has to be done.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._seen: tuple[int, int] | None = None
        self._since = monotonic()

    def observe(self, result: PollResult) -> None:
        """Compare the result of a poll with that of the one before."""
        seen = self._tally.total(PROCESS, ProcessCounter.CLAIMS), result.last_seq
        if seen != self._seen or result.has_running or result.waiting():
            self._seen, self._since = seen, monotonic()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has happened for a while."""
        return monotonic() - self._since >= QUIET_AFTER
