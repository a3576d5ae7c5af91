"""A throttle: what may turn dear is done so rarely that it takes no more than its share of the time."""


class Throttle:
    """Says when something is due again: after `every` seconds, or later, so that it takes one `share`-th of the time.

    Two in a row have to be dear for that: one alone may have waited for a processor.
    """

    __slots__ = ("_cheap", "_every", "_share", "_took", "due")

    def __init__(self, share: int, *, every: float = 0.0, cheap: float = 0.0) -> None:
        self._share = share
        self._every = every
        self._cheap = cheap
        self._took = 0.0
        #: When it may be done again (monotonic).
        self.due = 0.0

    def note(self, now: float, took: float) -> None:
        """Take in that it was done by now (monotonic), in so many seconds; up to `cheap` is not dear."""
        dear, self._took = min(took, self._took), took
        self.due = now + max(self._every, self._share * dear if dear > self._cheap else 0.0)
