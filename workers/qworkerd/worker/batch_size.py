"""The pace: how much a worker claims at once."""

#: How much work a batch should be (seconds): it is acknowledged as a whole, and handed back when it takes longer.
WORK = 0.05
_ALPHA = 0.3


class BatchSize:
    """The batch grows while jobs are short, doubling from one, and shrinks at once when they are long."""

    __slots__ = ("_limit", "_mean", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mean = 0.0
        #: How many jobs the next claim should take.
        self.size = 1

    def note(self, jobs: int, seconds: float) -> None:
        """Take in how long so many jobs took."""
        if not jobs:
            return
        mean = seconds / jobs
        self._mean = mean if mean >= self._mean else self._mean + _ALPHA * (mean - self._mean)
        affordable = int(WORK / self._mean) if self._mean > 0 else self._limit
        self.size = max(1, min(self._limit, affordable, self.size * 2))

    def halve(self) -> None:
        """Take in that a claim has failed: what it asked for may have been too much."""
        self.size = max(1, self.size // 2)
