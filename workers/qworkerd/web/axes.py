"""The axes of charts: periods of time in a zone, and quantities with their ticks."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from qworker.durations import format_duration
from qworkerd.web import texts

#: Maximum number of labels of an axis of time, and of one of numbers.
MAX_TIMES, MAX_NUMBERS = 8, 4
#: Distances of the labels of an axis of time (minutes); days follow.
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)
_DAY = 1_440
#: PostgreSQL's date_bin() counts from here in all statements for statistics.
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
#: Distances of the labels of durations (seconds), up to a day.
_DURATIONS = (
    *(unit * factor for unit in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1) for factor in (1, 2, 5)),
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400,
)  # fmt: skip
_SECONDS_OF_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Period:
    """Equal slots of time."""

    #: When the first slot begins.
    begin: datetime
    #: The length of a slot (seconds).
    step: float
    #: The number of slots.
    slots: int
    #: The zone in which times are shown.
    zone: tzinfo = UTC

    @classmethod
    def last(cls, seconds: float, step: float, *, now: datetime, zone: tzinfo = UTC) -> "Period":
        """Return the slots of the last seconds, which begin where `Statistics.chart` lets its points begin."""
        slots = max(1, math.ceil(seconds / step))
        newest = math.floor((now - _ORIGIN).total_seconds() / step)
        return cls(_ORIGIN + timedelta(seconds=(newest - slots + 1) * step), step, slots, zone)

    @classmethod
    def between(cls, begin: datetime, end: datetime, step: float, zone: tzinfo = UTC) -> "Period":
        """Return the slots that contain an interval, and begin where `Statistics.chart` lets its points begin."""
        first = math.floor((begin - _ORIGIN).total_seconds() / step + 1e-6)
        last = math.ceil((end - _ORIGIN).total_seconds() / step - 1e-6)
        return cls(_ORIGIN + timedelta(seconds=first * step), step, max(1, last - first), zone)

    @property
    def end(self) -> datetime:
        """When the last slot ends."""
        return self.begin + timedelta(seconds=self.step * self.slots)

    def slot(self, at: datetime) -> int | None:
        """Return the slot of a time; None if it is outside."""
        number = math.floor((at - self.begin).total_seconds() / self.step + 1e-6)
        return number if 0 <= number < self.slots else None

    def fraction(self, at: datetime) -> float:
        """Return where in the period a time is, from 0 to 1."""
        return (at - self.begin).total_seconds() / (self.step * self.slots)

    def fill(self, points: Iterable[tuple[datetime, float | None]], empty: float | None = 0) -> list[float | None]:
        """Return a value for each slot: that of the last point in it."""
        values = [empty] * self.slots
        for at, value in points:
            if (number := self.slot(at)) is not None:
                values[number] = value
        return values

    def name(self, number: int) -> str:
        """Return when a slot begins: 27 Nov 14:00."""
        return self.time(self.begin + timedelta(seconds=number * self.step))

    def time(self, at: datetime) -> str:
        """Return a time in the zone: 27 Nov 14:00."""
        local = at.astimezone(self.zone)
        seconds = ":%S" if self.step % 60 else ""
        return f"{texts.quantities.day(local)} {local:%H:%M{seconds}}"

    def ticks(self) -> Iterator[tuple[float, str, bool]]:
        """Yield the labels: where in the period they are, their text, and whether they begin a day."""
        minutes = self.step * self.slots / 60
        wanted = next((step for step in _MINUTES if minutes / step <= MAX_TIMES), None)
        days = 1 if wanted else max(1, math.ceil(minutes / _DAY / MAX_TIMES))
        last = ""
        for at in _wall_times(self.begin, self.end, wanted or _DAY * days, self.zone):
            day = not at.hour and not at.minute
            text = texts.quantities.day(at) if day else f"{at:%H:%M}"
            if text != last:
                yield self.fraction(at), text, day
            last = text


def _wall_times(begin: datetime, end: datetime, minutes: int, zone: tzinfo) -> Iterator[datetime]:
    """Yield the times of a clock on the wall that are multiples of some minutes from midnight on.

    When clocks are set back, an hour is yielded twice; when they are set forward, one is missing.
    """
    midnight = begin.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if minutes > _DAY:  # every n-th day, independent of where the period begins
        midnight -= timedelta(days=midnight.toordinal() % (minutes // _DAY))
    found = set()
    wall, last = midnight, end.astimezone(zone).replace(tzinfo=None) + timedelta(hours=3)
    while wall <= last:
        for fold in (0, 1):
            at = wall.replace(tzinfo=zone, fold=fold)
            back = at.astimezone(UTC).astimezone(zone)
            if back.replace(tzinfo=None) == wall and begin <= at.astimezone(UTC) < end:
                found.add(at.astimezone(UTC))
        wall += timedelta(minutes=minutes)
    for moment in sorted(found):
        yield moment.astimezone(zone)


@dataclass(frozen=True, slots=True)
class Quantity:
    """What an axis measures: how its values are written, and the distances that its labels may have."""

    text: Callable[[float], str]
    #: The shortest text for a label; at most about six characters.
    label: Callable[[float], str]
    #: Return the smallest sensible distance of labels that is not shorter than this.
    distance: Callable[[float], float]

    def ticks(self, top: float) -> Sequence[float]:
        """Return the labels for values from 0 to `top`; the last is not lower than `top`."""
        top = top if top > 0 else 1
        distance = self.distance(top / MAX_NUMBERS)
        return [distance * number for number in range(max(1, math.ceil(top / distance - 1e-9)) + 1)]


def short_number(value: float) -> str:
    """Format a number with three digits: 950, 1.2k, 35M."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 999.5:  # noqa: PLR2004
            return f"{value:.3g}{unit}"
        value /= 1_000
    return f"{value:.0e}P"


def exact_number(value: float) -> str:
    """Format a number in full: 1,234,567; 0.25."""
    return f"{int(value):,}" if value == int(value) else f"{value:,.3g}"


def duration(seconds: float) -> str:
    """Format a duration; below ten milliseconds more exactly than `format_duration`."""
    if 0 < seconds < 0.001:  # noqa: PLR2004
        return f"{seconds * 1e6:.0f}µs"
    return f"{seconds * 1e3:.2g}ms" if 0 < seconds < 0.0095 else format_duration(seconds)  # noqa: PLR2004


def _of_counts(least: float) -> float:
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least * (1 - 1e-9))
    return max(step, 1)


def _of_durations(least: float) -> float:
    for step in _DURATIONS:
        if step >= least:
            return step
    return _of_counts(least / _SECONDS_OF_DAY) * _SECONDS_OF_DAY


def finite(value: float | None) -> float | None:
    """Return a value that can be drawn: None for infinity and NaN, 0 for less than 0."""
    return None if value is None or not math.isfinite(value) else max(value, 0)


#: Things that are counted, and durations in seconds.
COUNT = Quantity(exact_number, short_number, _of_counts)
SECONDS = Quantity(duration, duration, _of_durations)
