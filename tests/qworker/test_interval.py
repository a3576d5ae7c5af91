"""An interval has whole parts of the counts that are still kept of it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.interval import LONGEST, MAX_POINTS, STEPS, Interval

NOW = datetime(2026, 11, 27, 12, 34, 56, tzinfo=UTC)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


@pytest.mark.parametrize(
    ("begin", "end", "expected", "step"),
    [
        (ago(minutes=10), ago(minutes=5), ("12:24", "12:30"), 60),
        (ago(hours=3), ago(hours=2), ("09:30", "10:40"), 600),
        (ago(days=3), ago(days=3) + timedelta(minutes=1), ("12:00", "13:00"), 3_600),
        (ago(minutes=10), NOW + timedelta(days=9), ("12:24", "12:35"), 60),
    ],
)
def test_it_grows_to_whole_parts(begin: datetime, end: datetime, expected: tuple[str, str], step: float) -> None:
    found = Interval.around(begin, end, now=NOW)
    assert (f"{found.begin:%H:%M}", f"{found.end:%H:%M}") == expected
    assert (found.step, found.seconds) == (step, (found.end - found.begin).total_seconds())


@pytest.mark.parametrize(
    ("begin", "end", "problem"),
    [
        (ago(hours=1), ago(hours=1), "not after"), (ago(hours=1), ago(hours=2), "not after"),
        (NOW, NOW + timedelta(hours=1), "future"), (ago(days=33), NOW, "kept for 32"),
        (datetime.min.replace(tzinfo=UTC), NOW, "after the year 1999"),
        (ago(hours=1), datetime.max.replace(tzinfo=UTC), "after the year 1999"),
        (ago(hours=1).replace(tzinfo=None), NOW, "offset"),
    ],
)  # fmt: skip
def test_what_is_not_an_interval_is_refused(begin: datetime, end: datetime, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Interval.around(begin, end, now=NOW)


@given(st.floats(1, LONGEST - 7_200), st.floats(0, 1))
def test_its_chart_has_few_points_and_it_contains_what_was_asked_for(age: float, part: float) -> None:
    begin = NOW - timedelta(seconds=age)
    end = begin + timedelta(seconds=max(1e-3, age * part))
    found = Interval.around(begin, end, now=NOW)
    assert found.begin <= begin < end <= found.end + timedelta(milliseconds=2)
    assert found.step in STEPS
    assert found.seconds / found.step <= MAX_POINTS


def test_parts_and_days_can_be_those_of_other_counts() -> None:
    found = Interval.around(ago(minutes=30), ago(minutes=25), now=NOW, part=600, days=7)
    assert (f"{found.begin:%H:%M}", f"{found.end:%H:%M}") == ("12:00", "12:10")
    assert Interval.around(ago(days=7), NOW, now=NOW, part=600, days=7).seconds >= 7 * 86_400
    with pytest.raises(ValueError, match=r"has 8\.0 days, and counts are kept for 7"):
        Interval.around(ago(days=8), NOW, now=NOW, part=600, days=7)
