"""Limit how often an operation that may become expensive is run."""


class Throttle:
    """Tells when an operation is due again: after `every` seconds, or so late that it takes 1/`share` of the time.

    Only two expensive runs in a row have this effect: a single one may have waited for a processor.
    """

    __slots__ = ("_cheap", "_every", "_share", "_took", "due")

    def __init__(self, share: int, *, every: float = 0.0, cheap: float = 0.0) -> None:
        self._share = share
        self._every = every
        self._cheap = cheap
        self._took = 0.0
        #: When the operation may run again (monotonic).
        self.due = 0.0

    def note(self, now: float, took: float) -> None:
        """Record a run that ended now (monotonic) and its duration (seconds); up to `cheap` it is not expensive."""
        expensive, self._took = min(took, self._took), took
        self.due = now + max(self._every, self._share * expensive if expensive > self._cheap else 0.0)
