"""Show the schedules and their next ticks; pause, resume and run them."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import click

from qworker.durations import format_duration
from qworker.nearest import not_found
from qworker.timetable import ScheduleEntry, timetable
from qworkerd.cli.completion import completing
from qworkerd.cli.options import options, targeted
from qworkerd.cli.subcommands import ListingGroup
from qworkerd.cli.tables import as_json, safe_echo, table, timestamp
from qworkerd.config.target import Target
from qworkerd.process import exits

HEAD = ("SCHEDULE", "TASK", "EXPRESSION", "LAST TICK", "NEXT TICK", "TIMEZONE", "NOTE")

json_option = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


@click.group(cls=ListingGroup, short_help="Show the schedules and their ticks; pause, resume and run them.")
@options("app", "schema")
def cron(**_: str | None) -> None:
    """Show the schedules that nodes have declared, and those of the application if one is named.

    Times are in the time zone of the schedule. A schedule that is paused, or that no live node declares, has no next
    tick.

    Without a subcommand, `cron` takes the options of `cron list`: `qworker cron --json`.
    """


@cron.command("list", short_help="List the schedules, as `cron` without a subcommand does.")
@json_option
@targeted
def list_(target: Target, *, json_output: bool) -> None:
    """List the schedules with their last and next ticks."""
    found = _gather(target)
    if json_output:
        as_json([_record(entry) for entry in found])
        return
    table(HEAD, [
        (s.name, s.task, s.expression, timestamp(s.local(s.last_tick)) if s.last_tick else "never",
         timestamp(s.next_tick) if s.next_tick else "none", s.timezone, s.note)
        for s in found
    ], note=True, empty="no schedules")  # fmt: skip


@cron.command("next", short_help="Show the coming ticks.")
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=completing("cron"))
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, metavar="N", help="How many. [default: 5]")
@json_option
@targeted
def next_(target: Target, *, names: tuple[str, ...], count: int, json_output: bool) -> None:
    """Show the coming ticks of schedules, in the time zone of each, as if they were not paused."""
    found = {schedule.name: schedule for schedule in _gather(target)}
    _refuse_unknown(names, list(found))
    ticks = {name: found[name].coming(count) for name in names or found}
    if json_output:
        as_json(ticks)
        return
    now = datetime.now(UTC)
    table(("SCHEDULE", "TICK", "IN", "TIMEZONE", "NOTE"), [
        (name, timestamp(tick), format_duration(max(0.0, (tick - now).total_seconds())), found[name].timezone,
         "paused" if found[name].paused else None)
        for name, found_ticks in ticks.items() for tick in found_ticks
    ], note=True, empty="no ticks")  # fmt: skip


@cron.command(short_help="Skip the ticks of schedules.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completing("cron"))
@click.option("--reason", metavar="TEXT", help="The reason, which is shown with the pause.")
@json_option
@targeted
def pause(target: Target, *, names: tuple[str, ...], reason: str | None, json_output: bool) -> None:
    """Skip the ticks of schedules until they are resumed, also if nodes are restarted or declare them anew.

    Jobs of earlier ticks are not affected. If a schedule was already paused, time and reason of its pause do not
    change.
    """
    _refuse_unknown(names, [status.name for status in target.admin.schedules()])
    try:
        changed = target.admin.pause_schedules(*names, reason=reason)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _report(target, names, changed, ("is paused", "was already paused"), json_output=json_output)


@cron.command(short_help="Enqueue the ticks of paused schedules again.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completing("cron"))
@json_option
@targeted
def resume(target: Target, *, names: tuple[str, ...], json_output: bool) -> None:
    """Enqueue the next ticks of paused schedules again. Ticks of the time of the pause are not enqueued."""
    _refuse_unknown(names, [status.name for status in target.admin.schedules()])
    changed = target.admin.resume_schedules(*names)
    _report(target, names, changed, ("is resumed", "was not paused"), json_output=json_output)


@cron.command(short_help="Enqueue the job of a schedule now.")
@click.argument("name", metavar="NAME", shell_complete=completing("cron"))
@json_option
@targeted
def run(target: Target, *, name: str, json_output: bool) -> None:
    """Enqueue the job of a schedule now, as at a tick, also if it is paused; its ticks stay as they are.

    Needs the application. Exits with status 1 if another job holds the unique key of the task.
    """
    app = target.application()
    _refuse_unknown([name], list(app.schedules))
    job = app.run_schedule(name)
    if json_output:
        as_json({"job": job.id, "task": job.task, "queue": job.queue, "state": job.state, "duplicate": job.duplicate})
    elif job.duplicate:
        safe_echo(
            f"job {job.id} ({job.state}) holds the unique key of task {job.task!r}: nothing was enqueued", err=True
        )
    else:
        safe_echo(f"job {job.id}: task {job.task!r} in queue {job.queue!r}")
    if job.duplicate:
        click.get_current_context().exit(exits.FAILURE)


def _refuse_unknown(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise click.UsageError(not_found("schedule", name, known, listing="cron list"))


def _report(
    target: Target, names: Sequence[str], changed: Sequence[str], words: tuple[str, str], *, json_output: bool
) -> None:
    """Print for each schedule the first of the words if it was changed, and the second if not."""
    pauses = {status.name: status.paused for status in target.admin.schedules()}
    if json_output:
        as_json({name: {"changed": name in changed, "paused": pauses.get(name)} for name in names})
        return
    for name in dict.fromkeys(names):
        details = f" {pauses[name]}" if pauses.get(name) else ""
        safe_echo(f"schedule {name!r} {words[name not in changed]}{details}")


def _gather(target: Target) -> list[ScheduleEntry]:
    return timetable(target.admin.schedules(), None if target.app is None else target.app.schedules)


def _record(entry: ScheduleEntry) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in fields(entry)}
