"""A time between two times, of which counts are read: in whole parts of what is still kept."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from qworker import error_groups
from qworker.tallies import DAY, FOLDS, STAT_DAYS, WIDEST

#: How old counts are at most that are kept in parts of this length (seconds); older ones are kept by hours.
PARTS = tuple((age, 60.0 * minutes) for minutes, _, age in FOLDS)
HOUR = 60.0 * WIDEST
#: The longest interval (seconds): that for which counts are kept.
LONGEST = STAT_DAYS * DAY
#: The distances of the points of a chart, and their number at most.
STEPS = (60.0, 600.0, HOUR, 14_400.0)
MAX_POINTS = 200
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
_LAST_YEAR = 2200


@dataclass(frozen=True, slots=True)
class Interval:
    """A time of which `Statistics` reads counts, as `period=interval.seconds, until=interval.end`."""

    #: When it begins, and the time before which it ends: the boundaries of parts that are kept.
    begin: datetime
    end: datetime
    #: The distance of the points of its charts (seconds).
    step: float

    @classmethod
    def around(
        cls, begin: datetime, end: datetime, *, now: datetime | None = None, part: float | None = None,
        days: int = STAT_DAYS,
    ) -> "Interval":  # fmt: skip
        """Return the shortest interval that contains these times; raises ValueError.

        Its parts are minutes if it began in the last 70 minutes, ten minutes in the last 25 hours, or else hours.

        part: the length of the parts of what is kept otherwise (seconds), such as the counts of errors; days: for how
        many days that is kept.
        """
        now = now or datetime.now(UTC)
        for name, at in (("beginning", begin), ("end", end)):
            if at.tzinfo is None or not _ORIGIN.year <= at.year < _LAST_YEAR:
                raise ValueError(f"the {name} is {at.isoformat()}, not a time with an offset after the year 1999")
        if not begin < end:
            raise ValueError(f"the interval ends at {end.isoformat()}, which is not after {begin.isoformat()}")
        if begin >= now:
            raise ValueError(f"the interval begins at {begin.isoformat()}, which is in the future")
        age = (now - begin).total_seconds()
        if part is None:
            part = next((length for oldest, length in PARTS if age <= oldest), HOUR)
        first, last = _floor(begin, part), _floor(min(end, now), part)
        if last < min(end, now):
            last += timedelta(seconds=part)
        length = (min(end, now) - begin).total_seconds()
        if length > days * DAY:
            raise ValueError(f"the interval has {length / DAY:,.1f} days, and counts are kept for {days}")
        grown = (last - first).total_seconds()
        step = next((one for one in STEPS if one >= part and grown / one <= MAX_POINTS), STEPS[-1])
        return cls(first, last, step)

    @classmethod
    def of_errors(cls, begin: datetime, end: datetime) -> "Interval":
        """Return the shortest interval of whole parts of the counts of errors; raises ValueError."""
        return cls.around(begin, end, part=error_groups.PART, days=error_groups.STAT_DAYS)

    @property
    def times(self) -> tuple[datetime, datetime]:
        """Its beginning and its end."""
        return self.begin, self.end

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.begin).total_seconds()


def _floor(at: datetime, part: float) -> datetime:
    return at.astimezone(UTC) - timedelta(seconds=(at - _ORIGIN).total_seconds() % part)
