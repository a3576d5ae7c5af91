"""When the ticks of a cron expression fall."""

from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from qworker import App, ConfigurationError
from qworker.schedule import MAX_MISSED_TICKS, TICK_GRACE, Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(expression: str, misfire: Any = "once", timezone: str = "Europe/Berlin") -> Schedule:
    return Schedule("s", "t", expression, timezone, misfire)


def at(*when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=BERLIN, fold=fold).timestamp()  # type: ignore[arg-type, misc]


def walls(ticks: list[float]) -> list[str]:
    return [datetime.fromtimestamp(tick, BERLIN).strftime("%d %H:%M%z") for tick in ticks]


def test_ticks_are_later_than_the_first_bound_and_not_later_than_the_second() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    every = schedule("*/5 * * * *", timezone="UTC")
    assert list(every.ticks(noon, noon + 600)) == [noon + 300, noon + 600]
    assert list(every.ticks(noon + 0.5, noon + 299.9)) == []
    assert list(every.ticks(noon - 0.001, noon)) == [noon]


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("0 3-3 * * *", 1), ("0 3-03 * * *", 1), ("0-0 3 * * *", 1), ("0 12-12,14-14 * * *", 2), ("0 3-3/5 * * *", 1),
        ("0 0 15-15 * *", 1), ("0 0 1-1 * *", 0), ("0 0 * jan-jan *", 1), ("0 0 * 1-JAN *", 1), ("0 0 * 12-12 *", 0),
        ("0 0 * * thu-thu", 1), ("0 0 * * thu-4", 1), ("0 0 * * 7-7", 0), ("0 0 * * 7-0", 0), ("0 0 * * 0-7", 1),
        ("0 3 * * * 0-0", 1), ("0-0 * * * *", 24), ("*/60 * * * *", 24),
    ],
)  # fmt: skip
def test_a_range_with_equal_ends_is_one_value(expression: str, times: int) -> None:
    thursday = datetime(2026, 1, 15, tzinfo=UTC).timestamp()
    assert len(list(schedule(expression, timezone="UTC").ticks(thursday - 1, thursday + 86_399))) == times


def test_a_sixth_field_holds_seconds() -> None:
    ticks = schedule("* * * * * */20").ticks(at(2026, 1, 1), at(2026, 1, 1, 0, 1))
    assert [tick - at(2026, 1, 1) for tick in ticks] == [20, 40, 60]


def test_times_are_those_of_the_zone() -> None:
    (tick,) = islice(schedule("0 9 * * *").ticks(at(2026, 7, 1), float("inf")), 1)
    assert datetime.fromtimestamp(tick, UTC).hour == 7


def test_in_spring_a_tick_in_the_hour_left_out_comes_at_its_end() -> None:
    ticks = schedule("30 2 * * *").ticks(at(2026, 3, 28), at(2026, 3, 31))
    assert walls(list(ticks)) == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]


def test_in_spring_ticks_every_twenty_minutes_stay_twenty_minutes_apart() -> None:
    ticks = schedule("*/20 * * * *").ticks(at(2026, 3, 29, 1, 30), at(2026, 3, 29, 3, 30))
    assert walls(list(ticks)) == ["29 01:40+0100", "29 03:00+0200", "29 03:20+0200"]


def test_in_autumn_a_named_hour_ticks_once() -> None:
    ticks = schedule("30 2 * * *").ticks(at(2026, 10, 24), at(2026, 10, 27))
    assert walls(list(ticks)) == ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]


def test_in_autumn_every_hour_ticks_in_both_of_the_equal_ones() -> None:
    ticks = schedule("*/30 * * * *").ticks(at(2026, 10, 25, 1, 45), at(2026, 10, 25, 3))
    assert walls(list(ticks)) == ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"]


def test_in_autumn_ticks_go_on_from_within_the_second_hour() -> None:
    after = at(2026, 10, 25, 2, 10, fold=1)
    assert walls(list(schedule("*/30 * * * *").ticks(after, after + 3600))) == ["25 02:30+0100", "25 03:00+0100"]
    assert walls(list(schedule("30 2 * * *").ticks(after, at(2026, 10, 26, 12)))) == ["26 02:30+0100"]


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25)])
def test_looking_often_finds_each_tick_of_a_changing_day_once(
    misfire: str, day: tuple[int, int, int], hours: int
) -> None:
    every = schedule("*/20 * * * *", misfire)
    begin = last = int(at(*day)) - 1
    found: list[float] = []
    for now in range(begin, begin + hours * 3600, 50):
        found += every.due(last, now)
        last = int(found[-1]) if found else last
    assert len(found) == hours * 3
    assert found == list(every.ticks(begin, begin + hours * 3600))


def test_missed_ticks_are_skipped_made_up_for_once_or_all() -> None:
    last, now = at(2026, 1, 1), at(2026, 1, 1, 5, 30)
    assert schedule("0 * * * *", "skip").due(last, now) == []
    assert schedule("0 * * * *", "once").due(last, now) == [at(2026, 1, 1, 5)]
    assert len(schedule("0 * * * *", "all").due(last, now)) == 5


def test_a_tick_that_is_late_by_seconds_is_on_time_whatever_the_policy() -> None:
    tick = at(2026, 1, 1, 5)
    for misfire in ("skip", "once", "all"):
        assert schedule("0 * * * *", misfire).due(tick - 3600, tick + TICK_GRACE / 2) == [tick]


def test_nothing_is_made_up_for_twice() -> None:
    tick = at(2026, 1, 1, 5)
    assert schedule("0 * * * *", "once").due(tick, tick + 1800) == []


def test_making_up_for_a_year_of_minutes_is_bounded() -> None:
    last = at(2025, 1, 1)
    ticks = schedule("* * * * *", "all").due(last, at(2026, 1, 1))
    assert (len(ticks), ticks[0]) == (MAX_MISSED_TICKS, last + 60)


def test_the_newest_tick_is_found_however_long_ago() -> None:
    assert schedule("0 0 29 2 *").last(at(2026, 1, 1)) == at(2024, 2, 29)
    assert schedule("0 0 29 2 *").next(at(2026, 1, 1)) == at(2028, 2, 29)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("61 * * * *", "out of range"),
        ("*/0 * * * *", "step '0'"),
        ("* * * *", "expected five fields, got 4: minute, hour, day of the month, month, day of the week"),
        ("", "expected five fields, got 0"),
        ("@reboot", "@reboot is not supported"),
        ("@Reboot", "@Reboot is not supported"),
        ("@fortnightly", "unknown nickname @fortnightly; expected one of @yearly, "),
        ("*/61 * * * *", "the step of '*/61' exceeds its field: minute has 60 values"),
        ("*/90 * * * *", "minute has 60 values"),
        ("5,*/90 * * * *", "minute has 60 values"),
        ("0 0-23/25 * * *", "hour has 24 values"),
        ("0 0 */32 * *", "day of the month has 31 values"),
        ("0 0 1 */13 *", "month has 12 values"),
        ("0 0 * * */8", "day of the week has 7 values"),
        ("* * * * * */61", "second has 60 values"),
        ("a b c d e", "not acceptable"),
        ("0 0 30 2 *", "it would never tick"),
        ("R * * * *", "years, R and H are not supported"),
        ("H(0-3) * * * *", "years, R and H are not supported"),
        ("* * * * * * 2030", "years, R and H are not supported"),
        (5, "a string of five or six fields"),
    ],
)
def test_a_bad_expression_fails_where_it_is_declared_with_the_reason(expression: Any, reason: str) -> None:
    app = App("")

    @app.task(name="task")
    def report() -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        app.cron(expression)(report)
    assert repr(expression) in str(caught.value)
    assert reason in str(caught.value)
    assert report.name in str(caught.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe", None])
def test_a_zone_that_does_not_exist_fails_where_it_is_declared(zone: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Schedule("s", "t", "* * * * *", zone)
    assert f"unknown time zone {zone!r}" in str(caught.value)


def test_an_unknown_misfire_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="misfire must be one of 'skip', 'once', 'all', not 'never'"):
        schedule("* * * * *", "never")
