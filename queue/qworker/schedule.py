"""A schedule: when the ticks of a cron expression fall, in its time zone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from qworker.crontab import normalize
from qworker.errors import ConfigurationError
from qworker.walltime import gap_end, instants, repeated_from

Misfire = Literal["skip", "once", "all"]

#: Seconds for which a tick that is late still counts as on time.
TICK_GRACE = 60.0
#: How many missed ticks `misfire="all"` makes up for in one go; the rest follows in the next.
MAX_MISSED_TICKS = 1000

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a task is enqueued by the clock.

    Times are those of the clock on the wall. Where the clock is put back, an expression that names hours ticks in the
    first pass of the repeated time only, one that holds for every hour ticks in both. Where it is put forward, ticks of
    the time left out come at its end, as one. An expression that holds for every hour has one there only if the change
    is not by whole hours: otherwise the same minute of the next hour comes an hour after the one before.
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
            raise ConfigurationError(f"{self._label}: misfire is one of {allowed}, not {self.misfire!r}")
        self._check_zone()
        self._check_expression()

    def ticks(self, after: float, upto: float) -> Iterator[float]:
        """Yield the ticks later than `after` and not later than `upto`, in seconds since 1970, oldest first."""
        zone, last = ZoneInfo(self.timezone), after
        for tick in self._instants(after, zone):
            if tick > upto:
                return
            if tick > last:
                yield tick
                last = tick

    def due(self, after: float, now: float) -> list[float]:
        """Return the ticks to enqueue now, oldest first, when the last one known was at `after`."""
        first = self.next(after)
        if first is None or first > now:
            return []
        if self.misfire == "all":
            return list(islice(self.ticks(after, now), MAX_MISSED_TICKS))
        on_time = list(self.ticks(max(after, now - TICK_GRACE), now))
        if on_time or self.misfire == "skip":
            return on_time
        return [self.last(now) or first]

    def last(self, upto: float) -> float | None:
        """Return the newest tick not later than `upto`."""
        span = 2 * TICK_GRACE
        while span < upto:
            if found := list(self.ticks(upto - span, upto)):
                return found[-1]
            span *= 4
        return None

    def next(self, after: float) -> float | None:
        """Return the first tick later than `after`."""
        return next(self.ticks(after, float("inf")), None)

    def _instants(self, after: float, zone: ZoneInfo) -> Iterator[float]:
        """Yield the instants of all ticks, in order, from not later than `after`; some may be equal.

        croniter walks over the times on the wall, which know no zone; each is then looked up in the zone. It would have
        to look for the changes of the clock itself otherwise, and what it finds depends on its version and on where the
        walk begins.
        """
        walls = croniter(normalize(self.expression), repeated_from(after, zone), ret_type=float)
        hourly = walls.expanded[1] == ["*"]
        second_pass: list[float] = []
        for wall in _until_none(walls):
            first, second = instants(wall, zone)
            if first > second:  # left out
                if hourly and (first - second) % _HOUR == 0:
                    continue
                first = gap_end(second, first, zone)
            while second_pass and second_pass[0] < first:
                yield second_pass.pop(0)
            yield first
            if hourly and first < second:
                second_pass.append(second)

    @property
    def _label(self) -> str:
        return f"@app.cron({self.expression!r}, timezone={self.timezone!r}) of {self.task}"

    def _check_zone(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (LookupError, ValueError, OSError, TypeError) as error:
            raise ConfigurationError(
                f"{self._label}: there is no time zone {self.timezone!r} here; IANA names look like 'Europe/Berlin' "
                "(a machine without them needs the package tzdata)"
            ) from error

    def _check_expression(self) -> None:
        expression: object = self.expression
        if not isinstance(expression, str):
            raise ConfigurationError(
                f"{self._label}: an expression is a string of five or six fields, or @hourly and such"
            )
        try:
            croniter(normalize(expression), datetime.fromtimestamp(0, UTC)).get_next(float)
        except CroniterBadDateError:
            raise ConfigurationError(f"{self._label}: no day is like that, it would never tick") from None
        except (CroniterError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{self._label}: {error}") from None


def _until_none(walls: croniter) -> Iterator[float]:
    """Yield the times on the wall until there is none in fifty years."""
    try:
        while True:
            yield walls.get_next()
    except CroniterBadDateError:
        return
