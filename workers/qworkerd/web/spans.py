"""The time of which a page shows counts: the last hours, or an interval that was chosen in a chart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qworker.interval import Interval
from qworker.statistics import PERIODS, STEPS
from qworkerd.web import texts
from qworkerd.web.axes import Period
from qworkerd.web.parameters import InvalidParameter, Parameters

#: A chart of sizes has about this number of points, and none for less than a sample (seconds).
DEPTH_POINTS, SAMPLE = 180, 15.0
#: What charts.js replaces.
BRUSH = ("~from", "~to")


@dataclass(frozen=True, slots=True)
class Span:
    """The period, or the interval, of a page. Equal spans show the same."""

    #: A key of PERIODS. It is shown again when the interval is removed.
    period: str
    interval: Interval | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.interval.seconds if self.interval else PERIODS[self.period]

    @property
    def until(self) -> datetime | None:
        """The time before which it ends; None for now."""
        return self.interval.end if self.interval else None

    @property
    def step(self) -> float:
        """The distance of the points of charts of counts (seconds)."""
        return self.interval.step if self.interval else STEPS[self.period]

    @property
    def depth_step(self) -> float:
        """The distance of the points of charts of sizes (seconds)."""
        return max(SAMPLE, self.seconds / DEPTH_POINTS)

    @property
    def words(self) -> str:
        """When something has happened: "in the last 24 hours"."""
        return texts.quantities.IN_THIS_TIME if self.interval else texts.quantities.in_the_last(self.period)

    @property
    def parameters(self) -> dict[str, str]:
        """What a link to another page needs to show the same time."""
        found = {"period": self.period}
        if self.interval:
            found |= {"from": _text(self.interval.begin), "to": _text(self.interval.end)}
        return found

    @property
    def brush(self) -> dict[str, str]:
        """The parameters of the page of a part of the time; the script of charts writes its beginning and its end."""
        return {"from": BRUSH[0], "to": BRUSH[1], "period": self.period}

    @property
    def filter(self) -> str:
        """The filter of jobs that were enqueued in the interval."""
        return "" if self.interval is None else "after:{from} before:{to}".format_map(self.parameters)

    def slots(self, step: float | None = None) -> Period:
        """Return the slots of a chart."""
        step = self.step if step is None else step
        if self.interval:
            return Period.between(self.interval.begin, self.interval.end, step)
        return Period.last(self.seconds, step, now=datetime.now(UTC))

    def as_dict(self) -> Mapping[str, Any]:
        """Return what the JSON of pages has."""
        return self.parameters


def span_of(parameters: Parameters) -> Span:
    """Return the span that a request names by `period`, or by `from` and `to`."""
    return Span(parameters.period(), interval_of(parameters))


def interval_of(
    parameters: Parameters, around: Callable[[datetime, datetime], Interval] = Interval.around
) -> Interval | None:
    """Return the interval that a request names by `from` and `to`, if it does; around: makes it of whole parts."""
    begin, end = parameters.time("from"), parameters.time("to")
    if begin is None and end is None:
        return None
    if begin is None or end is None:
        raise InvalidParameter(texts.refusals.half_interval("from" if begin is None else "to"))
    try:
        return around(begin, end)
    except ValueError as error:
        raise InvalidParameter(texts.refusals.wrong_interval(error)) from None


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
