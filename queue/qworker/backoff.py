"""Delays between attempts, each longer than the one before."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay after attempt n is `first * factor ** (n - 1)` seconds, at most `longest`."""

    first: float
    longest: float
    factor: float = 2.0

    def delay(self, attempt: int) -> float:
        """Return the delay in seconds after the given attempt (from 1)."""
        try:
            return min(self.longest, self.first * float(self.factor) ** max(0, attempt - 1))
        except OverflowError:
            return self.longest if self.first else 0.0
