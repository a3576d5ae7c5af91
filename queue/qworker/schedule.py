"""A schedule: when the ticks of a cron expression fall, in its time zone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from croniter import croniter

from qworker.errors import ConfigurationError

Misfire = Literal["skip", "once", "all"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a task is enqueued by the clock."""

    #: Its name in the database; the task's name unless given.
    name: str
    #: The task's name.
    task: str
    #: Five fields as in crontab(5), or six with seconds last.
    expression: str
    #: IANA name.
    timezone: str = "UTC"
    #: What becomes of ticks that nobody enqueued in time.
    misfire: Misfire = "once"

    def __post_init__(self) -> None:
        if not croniter.is_valid(self.expression):
            raise ConfigurationError(f"cron expression {self.expression!r}")

    def ticks(self, after: float, upto: float) -> Iterator[float]:
        """Yield the ticks later than `after` and not later than `upto`, in seconds since 1970, oldest first."""
        zone = ZoneInfo(self.timezone)
        ticks = croniter(self.expression, datetime.fromtimestamp(after, zone))
        while (tick := ticks.get_next(float)) <= upto:
            yield tick
