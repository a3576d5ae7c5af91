"""A clock for an operation that the scheduler repeats at an interval."""

from time import monotonic


class Periodic:
    """Due at once, and then one interval after each `restart`."""

    def __init__(self, interval: float) -> None:
        #: The interval (seconds).
        self.interval = interval
        #: When it is due (monotonic).
        self.due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is due now."""
        return monotonic() >= self.due

    def restart(self, since: float | None = None) -> None:
        """Start the interval again, now or as of `since` (monotonic)."""
        self.due = (monotonic() if since is None else since) + self.interval

    def hasten(self, seconds: float = 0.0) -> None:
        """Make it due after at most `seconds` from now."""
        self.due = min(self.due, monotonic() + seconds)
