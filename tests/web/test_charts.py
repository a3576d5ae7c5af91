import math
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from qworkerd.web import charts
from qworkerd.web.axes import COUNT, SECONDS, Period, duration, short_number
from qworkerd.web.charts import Chart, Mark, Series, lines, stacked_bars
from qworkerd.web.sparklines import sparkline

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
HOUR = Period(NOON - timedelta(hours=1), 60, 60, BERLIN)
ASSETS = Path(charts.__file__).parent / "static"


def between(first: int, last: int, minutes: int) -> list[str]:
    return [f"{at // 60:02}:{at % 60:02}" for at in range(first * 60, last * 60 + 1, minutes)]


def parsed(text: Markup) -> ET.Element:
    return ET.fromstring(str(text))  # noqa: S314 - our own


def svg(chart: Chart) -> ET.Element:
    return parsed(chart.svg)


def texts(chart: Chart, name: str) -> list[str]:
    return [found.text or "" for found in svg(chart).iter("text") if name in found.get("class", "").split()]


def heights(path: str) -> list[float]:
    return [round(float(low) - float(high), 1) for low, high in re.findall(r" ([\d.]+)V([\d.]+)h", path)]


def test_bars_are_stacked_by_their_values() -> None:
    period = Period(NOON, 60, 3)
    chart = stacked_bars(
        period,
        [Series("completed", [10, 20, 0], "completed"), Series("failed", [10, 0, 0], "failed")],
        title="Jobs",
    )

    completed, failed = svg(chart).iter("path")

    plot = charts.HEIGHT - charts.ABOVE - charts.BELOW
    assert completed.get("class") == "bar c-completed"
    assert heights(completed.get("d", "")) == [pytest.approx(plot / 2), plot]
    assert heights(failed.get("d", "")) == [pytest.approx(plot / 2)]
    assert texts(chart, "chart-y") == ["0", "5", "10", "15", "20"]


def test_a_value_that_is_tiny_beside_the_others_is_visible() -> None:
    chart = stacked_bars(Period(NOON, 60, 2), [Series("failed", [1, 1_000_000], "failed")], title="Jobs")

    (path,) = svg(chart).iter("path")

    assert heights(path.get("d", ""))[0] == 2
    assert "1M" in texts(chart, "chart-y")


def test_a_slot_without_a_value_interrupts_a_line_and_a_single_value_is_a_dot() -> None:
    chart = lines(Period(NOON, 60, 6), [Series("p50", [1, 2, None, 3, None, 4], "p50")], title="Wait")

    (path,) = svg(chart).iter("path")

    assert re.sub(r"[\d. ]+", "", path.get("d", "")) == "MLMM"
    assert [dot.get("cx") for dot in svg(chart).iter("circle")] == ["58.33%", "91.67%"]


def test_a_chart_without_values_says_so_and_keeps_its_axes() -> None:
    for chart in (
        stacked_bars(HOUR, [Series("completed", [0] * 60, "completed")], title="Jobs"),
        lines(HOUR, [Series("p50", [None] * 60, "p50")], title="Wait"),
        lines(HOUR, [], title="Nothing at all"),
    ):
        assert texts(chart, "chart-empty") == ["nothing in this period"]
        assert texts(chart, "chart-x")
        assert texts(chart, "chart-y")


def test_a_chart_is_read_out_with_its_title_and_what_is_in_it() -> None:
    values = [0.0] * 59 + [1_234_567]
    root = svg(stacked_bars(HOUR, [Series("completed", values, "completed")], title="Jobs that ended"))

    assert root.get("role") == "img"
    assert root.findtext("title") == "Jobs that ended"
    assert root.findtext("desc") == (
        "27 Nov 12:00 to 27 Nov 13:00; completed: 1,234,567 in all, at most 1,234,567 at 27 Nov 12:59"
    )


def test_the_table_has_a_row_for_each_slot_in_the_zone_and_exact_numbers() -> None:
    table = str(lines(HOUR, [Series("p50", [0.0305, None, *[0.00004] * 58], "p50")], title="Wait").table)

    assert table.count("<tr><th scope=row>") == 60
    assert "<th scope=row>27 Nov 12:00<td>30ms<tr>" in table
    assert "<th scope=row>27 Nov 12:01<td>-<tr>" in table
    assert "<td>40µs<tr>" in table


def test_names_are_text_whatever_they_contain() -> None:
    evil = "</title><script>alert(1)</script>\"' onload=x"
    period = Period(NOON, 60, 3)
    series = [Series(evil, [1, 2, 3], 'x" onload="')]
    chart = stacked_bars(period, series, title=evil, marks=[Mark(NOON, evil)])

    for text in (str(chart), str(sparkline([1], title=evil))):
        assert "<script" not in text
        assert 'onload="' not in text.replace("&#34;", '"').replace('x" onload="', "")
    assert "style=" not in str(chart)
    svg(chart)


def test_marks_are_drawn_in_the_period_and_named_where_there_is_room() -> None:
    at = HOUR.begin
    marks = [
        Mark(at - timedelta(minutes=1), "before"), Mark(at + timedelta(minutes=10), "first"),
        Mark(at + timedelta(minutes=12), "second"), Mark(at + timedelta(minutes=58), "a very long version"),
    ]  # fmt: skip
    root = svg(stacked_bars(HOUR, [Series("completed", [1] * 60)], title="Jobs", marks=marks))

    groups = [group for group in root.iter("g") if group.get("class") == "mark"]

    assert [group.findtext("title") for group in groups] == [
        "first at 27 Nov 12:10", "second at 27 Nov 12:12", "a very long version at 27 Nov 12:58"
    ]  # fmt: skip
    assert "second at 27 Nov 12:12" in (root.findtext("desc") or "")
    assert [group.findtext("text") for group in groups] == [None, "second", "a very long v…"]


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    odd = [math.nan, math.inf, -5, 3]
    for chart in (
        stacked_bars(Period(NOON, 60, 4), [Series("completed", odd)], title="Jobs"),
        lines(Period(NOON, 60, 4), [Series("p50", odd)], title="Wait"),
    ):
        assert not re.search(r"nan|inf", " ".join(path.get("d", "") for path in svg(chart).iter("path")))


@pytest.mark.parametrize(
    ("begin", "step", "slots", "zone", "expected"),
    [
        (NOON, 60, 60, UTC, ["12:00", "12:10", "12:20", "12:30", "12:40", "12:50"]),
        (NOON, 600, 144, BERLIN, ["15:00", "18:00", "21:00", "28 Nov", *between(3, 12, 180)]),
        (NOON, 3_600, 168, BERLIN, ["28 Nov", "29 Nov", "30 Nov", "1 Dec", "2 Dec", "3 Dec", "4 Dec"]),
        # A zone that is half an hour off: its hours, not those of UTC.
        (NOON, 60, 240, ZoneInfo("Asia/Kolkata"), ["17:30", *between(18, 21, 30)]),
        # Clocks are set back: 02:00 occurs twice, and is written once.
        (datetime(2026, 10, 25, tzinfo=UTC), 600, 24, BERLIN, ["02:00", "02:30", *between(2, 5, 30)[:6]]),
        # Clocks are set forward: there is no 02:30.
        (datetime(2026, 3, 29, tzinfo=UTC), 600, 18, BERLIN, ["01:00", "01:30", *between(3, 4, 30), "04:30"]),
        (NOON, 1, 1, UTC, ["12:00"]),
    ],
)  # fmt: skip
def test_times_are_those_of_a_clock_in_the_zone(
    begin: datetime, step: float, slots: int, zone: ZoneInfo, expected: list[str]
) -> None:
    ticks = list(Period(begin, step, slots, zone).ticks())

    assert [text for _, text, _ in ticks] == expected
    assert all(0 <= x < 1 for x, _, _ in ticks)


def test_a_month_has_a_label_every_few_days() -> None:
    ticks = [text for _, text, _ in Period.last(2_592_000, 14_400, now=NOON).ticks()]

    assert ticks == ["31 Oct", "4 Nov", "8 Nov", "12 Nov", "16 Nov", "20 Nov", "24 Nov"]


def test_the_last_slot_of_a_period_is_that_of_now_and_they_begin_as_points_do() -> None:
    period = Period.last(86_400, 600, now=datetime(2026, 11, 27, 12, 7, 31, tzinfo=UTC))

    assert (period.slots, period.end) == (144, datetime(2026, 11, 27, 12, 10, tzinfo=UTC))
    assert period.slot(datetime(2026, 11, 27, 12, 0, tzinfo=UTC)) == 143
    assert period.fill([(period.begin, 5), (period.end, 7)], None) == [5, *[None] * 143]


@given(st.floats(min_value=1e-9, max_value=1e17), st.sampled_from([COUNT, SECONDS]))
def test_an_axis_has_a_few_different_labels_and_holds_every_value(top: float, quantity: object) -> None:
    assert quantity in (COUNT, SECONDS)
    ticks = quantity.ticks(top)
    labels = [quantity.label(value) for value in ticks]

    assert 2 <= len(ticks) <= 5
    assert ticks[-1] >= top * (1 - 1e-6)
    assert len(set(labels)) == len(labels)
    assert all(after > before for before, after in pairwise(ticks))


def test_durations_have_the_distances_of_clocks() -> None:
    assert [duration(value) for value in SECONDS.ticks(45)] == ["0s", "15s", "30s", "45s"]
    assert [duration(value) for value in SECONDS.ticks(0.0003)] == ["0s", "100µs", "200µs", "300µs"]
    assert [duration(value) for value in SECONDS.ticks(0.0019)] == ["0s", "500µs", "1ms", "1.5ms", "2ms"]
    assert [duration(value) for value in SECONDS.ticks(90_000)] == ["0s", "12h", "1d", "1d12h"]


def test_numbers_are_short() -> None:
    assert [short_number(value) for value in (0.25, 999, 999.6, 1_234, 999_999, 1e6, 3.5e7, 2e13)] == [
        "0.25", "999", "1k", "1.23k", "1M", "1M", "35M", "20T"
    ]  # fmt: skip


def test_a_sparkline_has_a_bar_for_each_value_and_says_what_it_shows() -> None:
    root = parsed(sparkline([0, 3, 0, 1], title="Errors in 24 hours", kind="failed"))

    assert root.findtext("title") == "Errors in 24 hours: highest 3, last 1"
    assert [path.get("d", "").count("M") for path in root.iter("path")] == [1, 2]
    assert "none" in str(sparkline([0, 0], title="Errors"))
    assert "none" in str(sparkline([], title="Errors"))


def test_the_script_is_small_and_needs_nothing_that_the_policy_forbids() -> None:
    script = (ASSETS / "charts.js").read_text()

    assert len(script.encode()) <= 4_096
    assert not re.search(r"innerHTML|eval|Function\(|setAttribute\(.style|insertAdjacentHTML", script)
