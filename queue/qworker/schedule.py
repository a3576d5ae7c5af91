"""A schedule: when the ticks of a cron expression fall, in its time zone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from qworker.errors import ConfigurationError

Misfire = Literal["skip", "once", "all"]

#: Seconds for which a tick that is late still counts as on time.
GRACE = 60.0
#: How many missed ticks `misfire="all"` makes up for in one go; the rest follows in the next.
LIMIT = 1000

#: R and H draw a number at random or by a hash: every node would keep another schedule.
_DRAWN = re.compile(r"(?:^|[\s,])[RH](?:$|[\s,/(-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a task is enqueued by the clock.

    Times are those of the clock on the wall. Where it is put forward, ticks of the hour that is left out come at its
    end, once; where it is put back, an expression that names hours ticks in the first of the two equal hours alone, and
    one that holds for every hour in both (as cron(8) does).
    """

    #: Under which the last tick is kept; the task's name unless given.
    name: str
    #: The task's name.
    task: str
    #: Five fields as in crontab(5), a sixth for seconds, or a word such as @hourly.
    expression: str
    #: IANA name.
    timezone: str = "UTC"
    #: What becomes of ticks that are late by more than a minute: skip them, make up for the last one, or for all.
    misfire: Misfire = "once"

    def __post_init__(self) -> None:
        if self.misfire not in get_args(Misfire):
            allowed = ", ".join(map(repr, get_args(Misfire)))
            raise ConfigurationError(f"{self._self}: misfire is one of {allowed}, not {self.misfire!r}")
        self._check_zone()
        self._check_expression()

    def ticks(self, after: float, upto: float) -> Iterator[float]:
        """Yield the ticks later than `after` and not later than `upto`, in seconds since 1970, oldest first."""
        zone = ZoneInfo(self.timezone)
        ticks = croniter(self.expression, datetime.fromtimestamp(after, zone), ret_type=float)
        once = ticks.expanded[1] != ["*"]
        try:
            while (tick := ticks.get_next()) <= upto:
                if not (once and datetime.fromtimestamp(tick, zone).fold):
                    yield tick
        except CroniterBadDateError:  # no tick in fifty years
            return

    def due(self, after: float, now: float) -> list[float]:
        """Return the ticks to enqueue now, oldest first, when the last one known was at `after`."""
        first = self.next(after)
        if first is None or first > now:
            return []
        if self.misfire == "all":
            return list(islice(self.ticks(after, now), LIMIT))
        on_time = list(self.ticks(max(after, now - GRACE), now))
        if on_time or self.misfire == "skip":
            return on_time
        return [self.last(now) or first]

    def last(self, upto: float) -> float | None:
        """Return the newest tick not later than `upto`."""
        span = 2 * GRACE
        while span < upto:
            if found := list(self.ticks(upto - span, upto)):
                return found[-1]
            span *= 4
        return None

    def next(self, after: float) -> float | None:
        """Return the first tick later than `after`."""
        return next(self.ticks(after, float("inf")), None)

    @property
    def _self(self) -> str:
        return f"@app.cron({self.expression!r}, timezone={self.timezone!r}) of {self.task}"

    def _check_zone(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (LookupError, ValueError, OSError, TypeError) as error:
            raise ConfigurationError(
                f"{self._self}: there is no time zone {self.timezone!r} here; IANA names look like 'Europe/Berlin' "
                "(a machine without them needs the package tzdata)"
            ) from error

    def _check_expression(self) -> None:
        expression: object = self.expression
        if not isinstance(expression, str):
            raise ConfigurationError(
                f"{self._self}: an expression is a text of five or six fields, or @hourly and such"
            )
        if len(expression.split()) > 6 or _DRAWN.search(expression):  # noqa: PLR2004
            raise ConfigurationError(f"{self._self}: five fields, or six with seconds last; neither years nor R nor H")
        try:
            croniter(expression, datetime.fromtimestamp(0, ZoneInfo("UTC"))).get_next(float)
        except CroniterBadDateError:
            raise ConfigurationError(f"{self._self}: no day is like that, it would never tick") from None
        except (CroniterError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{self._self}: {error}") from None
