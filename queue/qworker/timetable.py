"""The schedules as they are in effect: their last and next ticks, and those that are late."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from qworker.errors import ConfigurationError
from qworker.schedule import MAX_MISSED_TICKS, TICK_GRACE, Schedule
from qworker.status import Pause, ScheduleStatus

#: What the time zones and expressions of another version may raise.
_UNREADABLE = (ConfigurationError, ValueError, LookupError, OSError, OverflowError)


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule of the database, of the application, or of both."""

    name: str
    task: str
    expression: str
    timezone: str
    #: The last tick that was enqueued or skipped; None if there was none yet.
    last_tick: datetime | None
    #: The next tick in the schedule's zone; None if it is paused or no live node declares it.
    next_tick: datetime | None
    #: The names of the live nodes that declare it.
    nodes: tuple[str, ...]
    paused: Pause | None
    #: Why it does not tick, or differs from what the application declares; empty if all is well.
    note: str
    #: How many ticks are more than a minute late, up to 1,000, and by how much the first one is (seconds).
    missed: int = 0
    late_seconds: float | None = None

    def coming(self, count: int, now: datetime | None = None) -> list[datetime]:
        """Return the coming ticks in the zone of the schedule; none if this version cannot evaluate it."""
        try:
            schedule, zone = Schedule("", "", self.expression, self.timezone), ZoneInfo(self.timezone)
            start = (now or datetime.now(UTC)).timestamp()
            return [datetime.fromtimestamp(t, zone) for t in islice(schedule.ticks(start, float("inf")), count)]
        except _UNREADABLE:
            return []

    def local(self, tick: datetime) -> datetime:
        """Return a time in the zone of the schedule, or as it is if the zone is not installed on this machine."""
        try:
            return tick.astimezone(ZoneInfo(self.timezone))
        except _UNREADABLE:
            return tick


def timetable(
    stored: Iterable[ScheduleStatus], declared: Mapping[str, Schedule] | None, now: datetime | None = None
) -> list[ScheduleEntry]:
    """Return all schedules, ordered by name.

    stored: those of the database. declared: those of the application; None if no application is known.
    """
    known, local = {status.name: status for status in stored}, declared or {}
    return [
        _entry(name, known.get(name), local.get(name), now or datetime.now(UTC), named=declared is not None)
        for name in sorted(known.keys() | local.keys())
    ]


def next_tick(expression: str, timezone: str, last_tick: datetime | None, now: datetime) -> datetime | None:
    """Return the next tick in the schedule's zone; None if there is none, or if this version cannot parse it.

    After a clock was set back the last tick may be in the future. Those up to it are not enqueued again.
    """
    try:
        schedule = Schedule("", "", expression, timezone)
        tick = schedule.next(max(now, last_tick or now).timestamp())
        return None if tick is None else datetime.fromtimestamp(tick, ZoneInfo(timezone))
    except _UNREADABLE:
        return None


def _entry(
    name: str, status: ScheduleStatus | None, schedule: Schedule | None, now: datetime, *, named: bool
) -> ScheduleEntry:
    # The declaration of live nodes is in effect; that of this application takes effect when a node of it starts.
    source = status if status is not None and status.nodes else schedule or status
    assert source is not None  # noqa: S101 - the name is in one of the two
    note = "; ".join(_notes(status, schedule, named=named))
    if status is None:
        return ScheduleEntry(name, source.task, source.expression, source.timezone, None, None, (), None, note)
    ticks = bool(status.nodes) and status.paused is None
    missed, late = _missed(status, now)
    return ScheduleEntry(
        name, source.task, source.expression, source.timezone, status.last_tick,
        next_tick(source.expression, source.timezone, status.last_tick, now) if ticks else None,
        status.nodes, status.paused, note, missed, late,
    )  # fmt: skip


def _missed(status: ScheduleStatus, now: datetime) -> tuple[int, float | None]:
    """Return how many ticks should have been enqueued, and how late the first one is."""
    if status.paused is not None or status.ticks_after is None:
        return 0, None
    try:
        schedule = Schedule("", "", status.expression, status.timezone)
        ticks = schedule.ticks(status.ticks_after.timestamp(), now.timestamp() - TICK_GRACE)
        late = list(islice(ticks, MAX_MISSED_TICKS))
    except _UNREADABLE:
        return 0, None
    return len(late), now.timestamp() - late[0] if late else None


def _notes(status: ScheduleStatus | None, schedule: Schedule | None, *, named: bool) -> list[str]:
    if status is None:
        return ["no node has declared it yet"]
    notes = [f"paused {status.paused}"] if status.paused else []
    if not status.nodes:
        notes.append("no live node declares it: it does not tick")
    if schedule is None:
        return [*notes, "not in this application"] if named else notes
    if (status.expression, status.timezone) == (schedule.expression, schedule.timezone):
        return notes
    if status.nodes:
        return [*notes, f"this application declares {schedule.expression!r} in {schedule.timezone}"]
    return [*notes, f"the last node declared {status.expression!r} in {status.timezone}"]
