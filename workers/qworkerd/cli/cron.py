"""Show the schedules and their next ticks."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from qworker.errors import ConfigurationError
from qworker.schedule import Schedule
from qworker.status import ScheduleStatus
from qworkerd.cli.options import targeted
from qworkerd.cli.tables import as_json, table, timestamp
from qworkerd.config.target import Target

HEAD = ("SCHEDULE", "TASK", "EXPRESSION", "LAST TICK", "NEXT TICK", "TIMEZONE", "NOTE")


@click.command(short_help="Show the schedules and their next ticks.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array.")
@targeted
def cron(target: Target, *, json_output: bool) -> None:
    """Show the schedules that nodes have declared, and those of the application if one is named.

    Times are in the time zone of the schedule. A schedule that no live node declares has no next tick.
    """
    found = _gather(target)
    if json_output:
        as_json(found)
        return
    table(HEAD, [
        (s["name"], s["task"], s["expression"], _shown(s["last_tick"], s["timezone"], "never"),
         _shown(s["next_tick"], s["timezone"], "none"), s["timezone"], s["note"])
        for s in found
    ], note=True, empty="no schedules")  # fmt: skip


def _gather(target: Target) -> list[dict[str, Any]]:
    declared = {status.name: status for status in target.admin.schedules()}
    local = dict(target.app.schedules) if target.app is not None else {}
    found = []
    for name in sorted(declared.keys() | local.keys()):
        status, schedule = declared.get(name), local.get(name)
        # The declaration of live nodes is in effect; that of this application takes effect when a node of it starts.
        source = status if status is not None and status.nodes else schedule or status
        assert source is not None  # noqa: S101 - the name is in one of the two
        nodes = status.nodes if status else ()
        found.append({
            "name": name, "task": source.task, "expression": source.expression, "timezone": source.timezone,
            "last_tick": status.last_tick if status else None,
            "next_tick": next_tick(source.expression, source.timezone, status.last_tick) if status and nodes else None,
            "nodes": nodes, "note": "; ".join(_notes(status, schedule, named=target.app is not None)),
        })  # fmt: skip
    return found


def _notes(status: ScheduleStatus | None, schedule: Schedule | None, *, named: bool) -> list[str]:
    if status is None:
        return ["no node has declared it yet"]
    notes = [] if status.nodes else ["no live node declares it: it does not tick"]
    if schedule is None:
        return [*notes, "not in this application"] if named else notes
    if (status.expression, status.timezone) == (schedule.expression, schedule.timezone):
        return notes
    if status.nodes:
        return [*notes, f"this application declares {schedule.expression!r} in {schedule.timezone}"]
    return [*notes, f"the last node declared {status.expression!r} in {status.timezone}"]


def next_tick(expression: str, timezone: str, last_tick: datetime | None) -> datetime | None:
    """Return the next tick in the schedule's zone; None if there is none, or if this version cannot parse it.

    After a clock was set back the last tick may be in the future. Those up to it are not enqueued again.
    """
    try:
        schedule = Schedule("", "", expression, timezone)
        now = datetime.now(UTC)
        tick = schedule.next(max(now, last_tick or now).timestamp())
        return None if tick is None else datetime.fromtimestamp(tick, ZoneInfo(timezone))
    except (ConfigurationError, ValueError, LookupError, OSError, OverflowError):
        return None


def _shown(tick: datetime | None, timezone: str, absent: str) -> str:
    if tick is None:
        return absent
    try:
        return timestamp(tick.astimezone(ZoneInfo(timezone)))
    except (ValueError, LookupError, OSError, OverflowError):  # a zone that is not installed on this machine
        return timestamp(tick)
