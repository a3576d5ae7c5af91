"""The number of jobs that a worker claims at once."""

#: The duration that a batch should have (seconds). It is acknowledged as a whole, and its rest is released if it takes
#: longer.
WORK = 0.05
_ALPHA = 0.3


class BatchSize:
    """Doubles the batch size while jobs are short, and reduces it at once when they are long."""

    __slots__ = ("_limit", "_mean", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mean = 0.0
        #: The number of jobs that the next claim should take.
        self.size = 1

    def note(self, jobs: int, seconds: float) -> None:
        """Record how long a number of jobs took."""
        if not jobs:
            return
        mean = seconds / jobs
        self._mean = mean if mean >= self._mean else self._mean + _ALPHA * (mean - self._mean)
        affordable = int(WORK / self._mean) if self._mean > 0 else self._limit
        self.size = max(1, min(self._limit, affordable, self.size * 2))

    def halve(self) -> None:
        """Halve the size after a failed claim, which may have been too large."""
        self.size = max(1, self.size // 2)
