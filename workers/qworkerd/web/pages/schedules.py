"""The schedules: their last and next ticks, those that are late; run now, pause and resume."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint

from qworker.errors import InvalidOperation
from qworker.schedules import tick_of
from qworker.timetable import ScheduleEntry, timetable
from qworkerd.web import links, texts
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import Done, action, page
from qworkerd.web.narrowing import Narrowed, narrow
from qworkerd.web.pages import Entry
from qworkerd.web.view import View

blueprint = Blueprint("schedules", __name__)
entry = Entry("schedules.index", texts.words.SCHEDULES, "s")

#: How many coming ticks are shown.
COMING = 3


@dataclass(frozen=True, slots=True)
class SchedulesData:
    """What the page shows."""

    schedules: Narrowed[ScheduleEntry]
    #: The coming ticks of each schedule that ticks, by name.
    coming: Mapping[str, Sequence[datetime]]
    #: The schedules of the application, which can be run now; None if only the database is known.
    declared: frozenset[str] | None
    #: Those that the database knows, which can be paused.
    stored: frozenset[str]

    @property
    def late(self) -> int:
        """The number of schedules with ticks that are late."""
        return sum(one.missed > 0 for one in self.schedules.lines)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return {name: getattr(self, name) for name in self.__slots__}


@page(blueprint, "/schedules", title=texts.words.SCHEDULES, table=lambda data: table(data.schedules.lines))
def index(view: View) -> SchedulesData:
    """Return the schedules of the database and of the application."""
    declared = None if view.app is None else view.app.schedules
    stored = view.get("schedules", CURRENT, view.source.admin.schedules)
    found = narrow(timetable(stored, declared), lambda one: one.name, view.parameters.text("find"))
    now = datetime.now(UTC)
    coming = {one.name: one.coming(COMING, now) for one in found.shown if one.next_tick is not None}
    known = frozenset(status.name for status in stored)
    return SchedulesData(found, coming, None if declared is None else frozenset(declared), known)


@action(blueprint, "/schedules/run", right="schedule.run")
def run(view: View) -> Done:
    """Enqueue the job of a schedule now."""
    name, app = view.form.exact("name"), view.app
    schedule = None if app is None else app.schedules.get(name)
    if app is None or schedule is None:
        raise InvalidOperation(texts.refusals.schedule_not_run(name))
    task = app.tasks[schedule.task]
    spec, key = tick_of(task.name, task.defaults, view.form.text("key") or None)
    job = view.source.acting.run_schedule(name, spec, key)
    to = links.job(job.id)
    if job.duplicate:
        return Done(texts.schedules.held(job.id), to=to, result={"job": job.id}, changed=False)
    return Done(texts.schedules.enqueued(job.id, name), to=to, result={"job": job.id})


@action(blueprint, "/schedules/pause", right="schedule.pause")
def pause(view: View) -> Done:
    """Skip the ticks of a schedule."""
    name = _existing(view)
    changed = view.source.acting.pause_schedules(name, reason=view.form.text("reason", longest=1_000) or None)
    return Done(
        texts.schedules.paused(name, before=not changed), result={"schedule": name, "paused": True},
        changed=bool(changed),
    )  # fmt: skip


@action(blueprint, "/schedules/resume", right="schedule.resume")
def resume(view: View) -> Done:
    """Enqueue the ticks of a schedule again."""
    name = _existing(view)
    changed = view.source.acting.resume_schedules(name)
    return Done(
        texts.schedules.resumed(name, before=not changed), result={"schedule": name, "paused": False},
        changed=bool(changed),
    )  # fmt: skip


def table(schedules: Iterable[ScheduleEntry]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the schedules for a spreadsheet."""
    head = (
        "schedule", "task", "expression", "timezone", "last_tick", "next_tick", "late_ticks", "paused_at", "paused_by",
        "pause_reason", "note",
    )  # fmt: skip
    return head, (
        (s.name, s.task, s.expression, s.timezone, s.last_tick, s.next_tick, s.missed,
         *((s.paused.at, s.paused.by, s.paused.reason) if s.paused else (None, None, None)), s.note)
        for s in schedules
    )  # fmt: skip


def _existing(view: View) -> str:
    name = view.form.exact("name")
    if name not in {status.name for status in view.source.acting.schedules()}:
        raise InvalidOperation(texts.refusals.no_schedule(name))
    return name
