"""How long jobs of a task usually wait and run, and how the times of one job compare with that."""

from dataclasses import dataclass
from typing import Any, Final

from qworker.counts import Durations
from qworker.db.statements import Database
from qworker.statistics import Statistics

#: The time whose attempts are counted (seconds).
PERIOD: Final = 86_400.0
#: By how much a quantile of a histogram may be off (part of it).
ERROR: Final = 0.09


@dataclass(frozen=True, slots=True)
class Typical:
    """The median and the 95th percentile of a time (seconds), each off by at most 9 %."""

    p50: float
    p95: float
    #: The number of attempts.
    count: int

    def ratio(self, seconds: float | None) -> float | None:
        """Return how many times the median a duration is; None if it is unknown or the median is 0."""
        return None if seconds is None or self.p50 <= 0 else seconds / self.p50

    def beyond(self, seconds: float | None) -> bool:
        """Return whether a duration is certainly longer than that of 95 % of the attempts."""
        return seconds is not None and seconds > self.p95 * (1 + ERROR)


@dataclass(frozen=True, slots=True)
class TypicalTimes:
    """What is usual for attempts of a task in a queue, in the last 24 hours; None if none has ended."""

    wait: Typical | None
    run: Typical | None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        return {"seconds": PERIOD, "wait": self.wait, "run": self.run}


def typical_times(database: Database, statistics: Statistics, queue: str, task: str) -> TypicalTimes:
    """Return the times of the attempts of a task in a queue that have ended in the last 24 hours."""
    for one in statistics.tasks(database, PERIOD, queue=queue, task=task):
        return TypicalTimes(_typical(one.counts.wait), _typical(one.counts.run))
    return TypicalTimes(None, None)


def _typical(durations: Durations) -> Typical | None:
    median, high = durations.quantile(0.5), durations.quantile(0.95)
    return None if median is None or high is None else Typical(median, high, durations.count)
