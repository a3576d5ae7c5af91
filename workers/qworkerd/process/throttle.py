"""Limits the share of time that an operation takes if it becomes expensive."""


class Throttle:
    """Determines when an operation is due again: `interval` seconds after it, or `factor` times its own duration.

    Only two expensive runs in a row lengthen the interval: a single one may have waited for a processor. `cheap` is the
    duration up to which a run is not expensive. All times are in seconds.
    """

    __slots__ = ("_cheap", "_factor", "_interval", "_last_duration", "due")

    def __init__(self, factor: int, *, interval: float = 0.0, cheap: float = 0.0) -> None:
        self._factor = factor
        self._interval = interval
        self._cheap = cheap
        self._last_duration = 0.0
        #: When the operation may run again (monotonic).
        self.due = 0.0

    def record(self, now: float, duration: float) -> None:
        """Record a run that ended at `now` (monotonic seconds), and its duration."""
        expensive, self._last_duration = min(duration, self._last_duration), duration
        self.due = now + max(self._interval, self._factor * expensive if expensive > self._cheap else 0.0)
