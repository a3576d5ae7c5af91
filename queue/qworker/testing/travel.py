"""Moves the clock of a test: of start times, due times and schedules."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import time

from qworker import App, clock
from qworker.db.adapters import Connection
from qworker.options import Options, check_datetime, check_seconds
from qworker.schedules import StoredSchedules
from qworker.spec import JobSpec


@contextmanager
def travel(to: datetime | timedelta | float) -> Iterator[None]:
    """Move the clock forward, to a datetime or by a timedelta or seconds, until the end of the block.

    Delays, start times and expiry times of jobs that are enqueued, the jobs that `drain` takes for due, and the delays
    of retries follow it; `drain` also enqueues the ticks of the application's schedules that have been passed. The
    clocks of Python and of the database are not changed. Blocks may be nested.
    """
    before = clock.offset()
    if isinstance(to, datetime):
        seconds = check_datetime("to", to).timestamp() - time()
    else:
        seconds = before + check_seconds("to", to)
    if seconds < before:
        raise ValueError(f"travel() goes forward in time, not to {to}: it is later already")
    clock.move(seconds)
    try:
        yield
    finally:
        clock.move(before)


def enqueue_ticks(app: App, database: Connection) -> None:
    """Enqueue the ticks of schedules that the moved clock has passed; in its own time a test has no ticks."""
    moved = clock.offset()
    if not moved or not app.schedules:
        return
    stored = StoredSchedules(app.schema)
    for schedule in app.schedules.values():
        stored.declare(
            database, 0, name=schedule.name, task=schedule.task, expression=schedule.expression,
            timezone=schedule.timezone,
        )  # fmt: skip
    for known in stored.find(database, list(app.schedules)):
        schedule = app.schedules[known.name]
        spec = JobSpec.of(schedule.task, app.tasks[schedule.task].defaults, Options())
        now = known.at + moved
        for tick in schedule.due(known.last_tick, now):
            stored.tick(
                database, spec, spec.key_of({}), name=known.name, tick=tick, expression=known.expression,
                timezone=known.timezone, at=now,
            )  # fmt: skip
