"""Schedules on the days when a clock is changed, against a reference that looks at every minute."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from qworker.schedule import Schedule

DAYS = [
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    # By half an hour.
    ("Australia/Lord_Howe", "2026-10-04"), ("Australia/Lord_Howe", "2026-04-05"),
    # At 02:45 and 03:45.
    ("Pacific/Chatham", "2026-09-27"), ("Pacific/Chatham", "2026-04-05"),
    # At midnight.
    ("Asia/Beirut", "2026-03-29"), ("Asia/Beirut", "2026-10-25"), ("America/Santiago", "2026-09-06"),
    ("Africa/Cairo", "2026-04-24"),
    # A day was left out.
    ("Pacific/Apia", "2011-12-30"),
]  # fmt: skip
EXPRESSIONS = [
    "30 2 * * *", "0 2 * * *", "15 1 * * *", "45 1 * * *", "50 2 * * *", "0 0 * * *", "30 0 * * *", "0 3 * * *",
    "*/15 * * * *", "*/7 * * * *", "0 * * * *", "5 * * * *", "50 * * * *", "*/20 1-3 * * *", "0 */2 * * *", "0 4 * * *",
    "0 12 * * sun", "5 1,2,3 * * *", "59 23 * * *",
]  # fmt: skip
HOUR = timedelta(hours=1)


def values(field: str, size: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        ends, _, step = part.partition("/")
        low, _, high = ends.partition("-")
        first, last = (0, size - 1) if ends == "*" else (int(low), int(high or low))
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def reference(expression: str, zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[float]:
    """Yield the ticks later than `begin` and before `end`: walk over the minutes, and look at the clock at each."""
    minute, hour, _, _, weekday = expression.split()
    minutes, hours = values(minute, 60), values(hour, 24)

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and (weekday == "*" or wall.weekday() == 6)

    at, before = begin, begin.astimezone(zone).replace(tzinfo=None)
    while (at := at + timedelta(minutes=1)) < end:
        shown = at.astimezone(zone)
        wall = shown.replace(tzinfo=None)
        left_out, step = wall - before - timedelta(minutes=1), timedelta(minutes=1)
        missed = False
        if left_out > timedelta() and (hour != "*" or left_out % HOUR):
            missed = any(matches(before + step * n) for n in range(1, left_out // step + 1))
        if missed or (matches(wall) and (hour == "*" or not shown.fold)):
            yield at.timestamp()
        before = wall


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(("name", "day"), DAYS)
def test_ticks_are_those_of_the_clock_on_the_wall_seen_from_any_moment(name: str, day: str, expression: str) -> None:
    zone, schedule = ZoneInfo(name), Schedule("s", "t", expression, name)
    noon = datetime.fromisoformat(day).replace(tzinfo=UTC) + 12 * HOUR
    begin, end = noon - 60 * HOUR, noon + 60 * HOUR
    expected = list(reference(expression, zone, begin, end))
    assert list(schedule.ticks(begin.timestamp(), end.timestamp() - 1)) == expected
    # From each moment before and after the change: what comes next, and that nothing that has been comes again.
    for moment in range(int((noon - 30 * HOUR).timestamp()), int((noon + 18 * HOUR).timestamp()), 1260):
        following = next((tick for tick in expected if tick > moment), None)
        if following is not None:
            assert schedule.next(moment) == following, datetime.fromtimestamp(moment, zone)


def shown(name: str, ticks: Iterator[float]) -> list[str]:
    return [datetime.fromtimestamp(tick, ZoneInfo(name)).strftime("%H:%M%z") for tick in ticks]


def at(name: str, *when: int) -> float:
    return datetime(*when, tzinfo=ZoneInfo(name)).timestamp()  # type: ignore[arg-type, misc]


def test_half_an_hour_left_out_costs_no_hourly_tick() -> None:
    """At 02:00 the clock is put forward to 02:30: an hour after the tick of 01:00 comes the one of 02:00."""
    zone = "Australia/Lord_Howe"
    ticks = Schedule("s", "t", "0 * * * *", zone).ticks(at(zone, 2026, 10, 4), at(zone, 2026, 10, 4, 4))
    assert shown(zone, ticks) == ["01:00+1030", "02:30+1100", "03:00+1100", "04:00+1100"]


def test_half_an_hour_repeated_has_its_ticks_twice() -> None:
    zone = "Australia/Lord_Howe"
    ticks = Schedule("s", "t", "*/10 * * * *", zone).ticks(at(zone, 2026, 4, 5, 1, 20), at(zone, 2026, 4, 5, 2))
    passes = ["01:30+1100", "01:40+1100", "01:50+1100", "01:30+1030", "01:40+1030", "01:50+1030"]
    assert shown(zone, ticks) == [*passes, "02:00+1030"]


def test_an_hour_repeated_from_a_quarter_to_three_has_named_ticks_once() -> None:
    zone = "Pacific/Chatham"
    named = Schedule("s", "t", "50 2 * * *", zone).ticks(at(zone, 2026, 4, 5), at(zone, 2026, 4, 6))
    hourly = Schedule("s", "t", "0 * * * *", zone).ticks(at(zone, 2026, 4, 5, 1), at(zone, 2026, 4, 5, 4))
    assert shown(zone, named) == ["02:50+1345"]
    assert shown(zone, hourly) == ["02:00+1345", "03:00+1345", "03:00+1245", "04:00+1245"]
