"""A schedule: computes the ticks of a cron expression in its time zone."""

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

#: Seconds by which a tick may be late and still counts as on time.
TICK_GRACE = 60.0
#: Maximum number of missed ticks that `misfire="all"` enqueues at once; the rest follows later.
MAX_MISSED_TICKS = 1000

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times at which a task is enqueued.

    An expression refers to wall-clock time. When the clock is set back, an expression with specific hours ticks only in
    the first pass of the repeated time; one for every hour ticks in both passes. When the clock is set forward, the
    ticks of the skipped time become one tick at its end. An expression for every hour gets this tick only if the change
    is not a whole number of hours; otherwise its ticks stay an hour apart without it.
    """

    #: The name under which the last tick is stored; by default the task's name.
    name: str
    #: The task's name.
    task: str
    #: Five fields as in crontab(5), a sixth for seconds, or a nickname such as @hourly.
    expression: str
    #: IANA name.
    timezone: str = "UTC"
    #: What to do with ticks that are more than a minute late: skip them, enqueue the last one once, or enqueue all.
    misfire: Misfire = "once"

    def __post_init__(self) -> None:
        if self.misfire not in get_args(Misfire):
            allowed = ", ".join(map(repr, get_args(Misfire)))
            raise ConfigurationError(f"{self._label}: misfire must be one of {allowed}, not {self.misfire!r}")
        self._check_zone()
        self._check_expression()

    def ticks(self, after: float, upto: float) -> Iterator[float]:
        """Yield the ticks after `after` up to `upto`, in seconds since 1970, oldest first."""
        zone, last = ZoneInfo(self.timezone), after
        for tick in self._instants(after, zone):
            if tick > upto:
                return
            if tick > last:
                yield tick
                last = tick

    def due(self, after: float, now: float) -> list[float]:
        """Return the ticks to enqueue now, oldest first, if the last known tick was at `after`."""
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
        """Return the last tick up to `upto`."""
        span = 2 * TICK_GRACE
        while span < upto:
            if found := list(self.ticks(upto - span, upto)):
                return found[-1]
            span *= 4
        return None

    def next(self, after: float) -> float | None:
        """Return the first tick after `after`."""
        return next(self.ticks(after, float("inf")), None)

    def _instants(self, after: float, zone: ZoneInfo) -> Iterator[float]:
        """Yield the instants of all ticks in order, starting at or before `after`; some may be equal.

        croniter iterates over wall-clock times without a zone, and each is then converted with the zone. croniter's own
        handling of clock changes depends on its version and on the start of the iteration.
        """
        walls = croniter(normalize(self.expression), repeated_from(after, zone), ret_type=float)
        hourly = walls.expanded[1] == ["*"]
        second_pass: list[float] = []
        for wall in _until_none(walls):
            first, second = instants(wall, zone)
            if first > second:  # skipped by the clock
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
                f"{self._label}: unknown time zone {self.timezone!r}; use an IANA name such as 'Europe/Berlin' "
                "(if the system has no time zone data, install the package tzdata)"
            ) from error

    def _check_expression(self) -> None:
        expression: object = self.expression
        if not isinstance(expression, str):
            raise ConfigurationError(
                f"{self._label}: an expression must be a string of five or six fields, or a nickname such as @hourly"
            )
        try:
            croniter(normalize(expression), datetime.fromtimestamp(0, UTC)).get_next(float)
        except CroniterBadDateError:
            raise ConfigurationError(f"{self._label}: no date matches, so it would never tick") from None
        except (CroniterError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{self._label}: {error}") from None


def _until_none(walls: croniter) -> Iterator[float]:
    """Yield wall-clock times until croniter finds none within fifty years."""
    try:
        while True:
            yield walls.get_next()
    except CroniterBadDateError:
        return
