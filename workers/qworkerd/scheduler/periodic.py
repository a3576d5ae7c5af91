"""A clock: when something that the scheduler repeats is due."""

from time import monotonic


class Periodic:
    """Due at once, and then one interval after each `restart`."""

    def __init__(self, every: float) -> None:
        #: The interval (seconds).
        self.every = every
        #: When it is due (monotonic).
        self.due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is due now."""
        return monotonic() >= self.due

    def restart(self, since: float | None = None) -> None:
        """Start the interval again, now or as of `since` (monotonic)."""
        self.due = (monotonic() if since is None else since) + self.every

    def hasten(self, seconds: float = 0.0) -> None:
        """Be due in this many seconds, unless it is due before."""
        self.due = min(self.due, monotonic() + seconds)
