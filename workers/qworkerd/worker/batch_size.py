"""The number of jobs that a worker claims at once."""

#: The intended duration of a batch (seconds). A batch is acknowledged as a whole, and its remaining jobs are released
#: if it takes longer.
TARGET_DURATION = 0.05
_ALPHA = 0.3


class BatchSize:
    """Doubles the batch size while jobs are short, and reduces it at once when they are long."""

    __slots__ = ("_max_size", "_mean", "size")

    def __init__(self, limit: int) -> None:
        self._max_size = limit
        self._mean = 0.0
        #: The number of jobs that the next claim should take.
        self.size = 1

    def record(self, jobs: int, seconds: float) -> None:
        """Record the duration of a number of jobs (seconds)."""
        if not jobs:
            return
        mean = seconds / jobs
        self._mean = mean if mean >= self._mean else self._mean + _ALPHA * (mean - self._mean)
        affordable = int(TARGET_DURATION / self._mean) if self._mean > 0 else self._max_size
        self.size = max(1, min(self._max_size, affordable, self.size * 2))

    def halve(self) -> None:
        """Halve the size after a failed claim, which may have been too large."""
        self.size = max(1, self.size // 2)
