"""Show the schedules and their next ticks."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from qworker.errors import ConfigurationError
from qworker.schedule import Schedule
from qworkerd.cli.options import targeted
from qworkerd.cli.tables import as_json, table
from qworkerd.target import Target


@click.command(short_help="Show the schedules and their next ticks.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON array.")
@targeted
def cron(to: Target, *, for_programs: bool) -> None:
    """Show the schedules: those that nodes have declared, and those of the application if one is named."""
    found = _gather(to)
    if for_programs:
        as_json(found)
        return
    head = ("SCHEDULE", "TASK", "EXPRESSION", "TIMEZONE", "LAST TICK", "NEXT TICK", "NOTE")
    table(head, [tuple(entry.values()) for entry in found])


def _gather(to: Target) -> list[dict[str, Any]]:
    declared = {status.name: status for status in to.admin.schedules()}
    ours = dict(to.app.schedules) if to.app is not None else {}
    found = []
    for name in sorted(declared.keys() | ours.keys()):
        status, schedule = declared.get(name), ours.get(name)
        note = ""
        if status is None:
            note = "no node has declared it yet"
        elif schedule is None:
            note = "not in this application" if to.app is not None else ""
        elif (status.expression, status.timezone) != (schedule.expression, schedule.timezone):
            note = f"nodes follow {status.expression!r} in {status.timezone}"
        source = schedule or status
        assert source is not None  # noqa: S101 - the name is of one or the other
        found.append({
            "name": name, "task": source.task, "expression": source.expression, "timezone": source.timezone,
            "last_tick": status.last_tick if status else None,
            "next_tick": next_tick(source.expression, source.timezone), "note": note,
        })  # fmt: skip
    return found


def next_tick(expression: str, timezone: str) -> datetime | None:
    """Return the next tick in the schedule's zone; None if there is none, or only a newer version can read it."""
    try:
        schedule = Schedule("", "", expression, timezone)
        tick = schedule.next(datetime.now(UTC).timestamp())
        return None if tick is None else datetime.fromtimestamp(tick, ZoneInfo(timezone))
    except (ConfigurationError, ValueError, LookupError):
        return None
