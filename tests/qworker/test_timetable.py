"""The schedules as they are in effect: next ticks, missed ones, and what differs between database and application."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qworker import App
from qworker.schedule import MAX_MISSED_TICKS, Schedule
from qworker.status import Pause, ScheduleStatus
from qworker.timetable import ScheduleEntry, timetable
from tests.qworker.conftest import Query

NOW = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)


def entry(declared: Schedule | None = None, now: datetime = NOW, **columns: Any) -> ScheduleEntry:
    known = {
        "name": "report", "task": "report", "expression": "0 * * * *", "timezone": "Europe/Berlin",
        "last_tick": NOW.replace(minute=0, second=0), "nodes": ("here",),
    }  # fmt: skip
    status = ScheduleStatus(**{"ticks_after": known["last_tick"], **known, **columns})
    (found,) = timetable([status], None if declared is None else {"report": declared}, now)
    return found


def test_next_tick_is_in_the_zone_of_the_schedule() -> None:
    found = entry()
    assert found.next_tick is not None
    assert found.next_tick.isoformat() == "2026-03-02T14:00:00+01:00"
    assert (found.missed, found.late_seconds, found.note) == (0, None, "")
    assert [tick.hour for tick in found.coming(3, NOW)] == [14, 15, 16]


def test_ticks_are_missed_that_are_more_than_a_minute_late() -> None:
    late = NOW.replace(hour=9, minute=0, second=0)
    found = entry(ticks_after=late, last_tick=late)
    assert (found.missed, found.late_seconds) == (2, 2 * 3600 + 30)  # that of noon is 30 s late
    assert entry(now=NOW + timedelta(seconds=31), ticks_after=late).missed == 3
    assert entry(expression="* * * * * *", ticks_after=NOW - timedelta(days=30)).missed == MAX_MISSED_TICKS


def test_a_paused_schedule_has_no_next_tick_and_misses_none() -> None:
    pause = Pause(NOW, "ada", "holidays")
    found = entry(paused=pause, ticks_after=NOW - timedelta(days=9))
    assert (found.next_tick, found.missed, found.paused) == (None, 0, pause)
    assert found.note.startswith("paused since ")


def test_an_undeclared_schedule_has_no_next_tick() -> None:
    found = entry(nodes=(), ticks_after=NOW - timedelta(hours=5))
    assert (found.next_tick, found.missed) == (None, 4)
    assert "no live node declares it" in found.note


def test_a_declaration_that_differs_is_told() -> None:
    other = Schedule("report", "report", "5 * * * *")
    assert "declares '5 * * * *' in UTC" in entry(other).note
    assert "the last node declared '0 * * * *'" in entry(other, nodes=()).note
    assert entry(other, nodes=()).expression == "5 * * * *"
    (found,) = timetable([], {"report": other}, NOW)
    assert (found.note, found.next_tick) == ("no node has declared it yet", None)


@pytest.mark.parametrize(
    "columns", [{"expression": "not cron"}, {"timezone": "Mars/Base"}, {"expression": "0 0 30 2 *"}]
)
def test_what_this_version_cannot_read_is_shown_without_ticks(columns: dict[str, Any]) -> None:
    found = entry(**columns)
    assert (found.next_tick, found.missed, found.coming(5)) == (None, 0, [])


def test_the_database_knows_after_which_time_ticks_are_enqueued(app: App, query: Query) -> None:
    query(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, created_at, last_tick, resumed_at)"
        " VALUES"
        " ('a', 'x', '* * * * *', 'UTC', 1, '2026-01-01Z', NULL, NULL),"
        " ('b', 'x', '* * * * *', 'UTC', 1, '2026-01-01Z', '2026-01-02Z', NULL),"
        " ('c', 'x', '* * * * *', 'UTC', 1, '2026-01-01Z', '2026-01-02Z', '2026-01-03Z') RETURNING 1"
    )
    days = [status.ticks_after.day for status in app.admin.schedules() if status.ticks_after]
    assert days == [1, 2, 3]
