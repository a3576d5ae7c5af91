"""List errors by group, show, mute and resolve a group, retry or discard its jobs."""

from datetime import UTC, datetime, timedelta
from textwrap import indent
from typing import Any

import click

from qworker.durations import format_duration, parse_duration
from qworker.error_groups import MAX_COUNTED, STAT_DAYS, ErrorGroup, GroupState
from qworker.fingerprint import from_hex
from qworker.interval import Interval
from qworker.job import Job
from qworker.operations import Action
from qworker.tracebacks import application_part
from qworkerd.cli import moments
from qworkerd.cli.acting import act_on_matching
from qworkerd.cli.actions import operation_options
from qworkerd.cli.completion import completing
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.running import local_time
from qworkerd.cli.sparkline import sparkline
from qworkerd.cli.subcommands import ListingGroup
from qworkerd.cli.tables import as_json, safe_echo, table, text
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask_and_shorten

#: The periods of the sparkline of the list, and of that of a group.
LIST_BINS, SHOW_BINS = 12, 48
ALL = "all"
STATES = click.Choice([*(state.value for state in GroupState), ALL])

json_option = click.option("--json", "json_output", is_flag=True, help="Print JSON with all fields.")


class Fingerprint(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """The fingerprint of a group."""

    name = "fingerprint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the digits."""
        try:
            from_hex(value)
        except ValueError:
            self.fail(f"{value!r} is not a fingerprint: pass the 16 digits that `qworker errors` shows", param, ctx)
        return str(value)


class Span(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """A duration."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return a duration of up to a thousand years."""
        try:
            found = timedelta(seconds=parse_duration(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a duration: pass 30m, 24h or 7d", param, ctx)
        if not timedelta(0) < found < timedelta(days=365_000):
            self.fail(f"{value!r} is not a duration: pass 30m, 24h or 7d", param, ctx)
        return found


SPAN = Span()
fingerprint_argument = click.argument("fingerprint", type=Fingerprint(), shell_complete=completing("fingerprint"))


@click.group(cls=ListingGroup, short_help="List errors by group; retry, discard, mute or resolve a group.")
@options("app", "schema")
def errors(**_: str | None) -> None:
    """List errors by group; retry, discard, mute or resolve a group.

    Failed attempts belong to one group if task, type, message and the innermost function of the application are the
    same; numbers, quoted values, paths and the like in the message do not count.

    Without a subcommand, `errors` takes the options of `errors list`: `qworker errors --state muted --json`.
    """


@errors.command("list", short_help="List the groups, those that occurred last first. The default.")
@click.option("--state", type=STATES, default="open", metavar="STATE",
              help="Only groups in this state: open, muted, resolved, or all. [default: open]")  # fmt: skip
@click.option("--queue", metavar="NAME", shell_complete=completing("queue"), help="Only errors of jobs of this queue.")
@click.option("--task", metavar="NAME", shell_complete=completing("task"), help="Only errors of this task.")
@click.option(
    "--since", type=SPAN, metavar="DURATION", help="Only groups that occurred within this time: 30m, 24h, 7d."
)
@moments.between
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, metavar="N", help="Maximum number. [default: 50]")
@json_option
@app_optional
def list_(
    target: Target, *, json_output: bool, state: str, since: timedelta | None, begin: datetime | None,
    end: datetime | None, **wanted: Any,
) -> None:  # fmt: skip
    """List the groups, those that occurred last first.

    COUNT is the number of failed attempts since the group exists; the bars are those of the last 24 hours, or of
    --since. Counts are up to ten seconds old.

    With --from and --to, only groups that occurred in that time are listed; COUNT and the bars are those of that time,
    which has whole parts of ten minutes. Such counts are kept for seven days.
    """
    interval = _interval(begin, end)
    if interval is not None and since is not None:
        raise click.UsageError("pass --since, or --from and --to")
    period = min(since or timedelta(days=1), timedelta(days=7))
    found = target.admin.error_groups(
        states=None if state == ALL else [state],
        since=since,
        period=period,
        bins=LIST_BINS,
        between=interval.times if interval else None,
        **wanted,
    )
    if json_output:
        as_json(found)
        return
    found_of = _found_of(wanted["task"], wanted["queue"], since)
    when = found_of if interval is None else f"{found_of} {moments.words(interval)}"
    table(("FINGERPRINT", "COUNT", "LAST", "BARS", *["STATE"] * (state == ALL), "TASK", "ERROR"), [
        (group.fingerprint, group.count if interval is None else sum(group.recent), local_time(group.last_seen),
         sparkline(group.recent), *[group.state] * (state == ALL), group.task, _title(group))
        for group in found
    ], note=True, empty=f"no errors{when}" if state == ALL else f"no {state} errors{when}")  # fmt: skip


@errors.command(short_help="Show a group with its counts, releases, jobs and the traceback of the last one.")
@fingerprint_argument
@moments.between
@json_option
@app_optional
def show(target: Target, *, fingerprint: str, begin: datetime | None, end: datetime | None, json_output: bool) -> None:
    """Show a group with its counts, releases, jobs and the traceback of the last one.

    The bars are those of the last 24 hours, or of --from and --to, in whole parts of ten minutes; such counts are kept
    for seven days.
    """
    admin, interval = target.admin, _interval(begin, end)
    group = admin.error_group(fingerprint, bins=SHOW_BINS, between=interval.times if interval else None)
    failed = admin.count_failed_of(fingerprint)
    sample, record = _sample(admin.show_many(group.samples), group)
    if json_output:
        as_json({**_fields(group), "failed_jobs": failed, "sample": record})
        return
    safe_echo(f"{_title(group)}")
    bound = f"{MAX_COUNTED:,} or more" if failed >= MAX_COUNTED else f"{failed:,}"
    rows = [
        ("task", group.task), ("raised in", group.frame), ("queues", group.queues), ("state", _state(group)),
        ("count", f"{group.count:,} failed attempts"), ("failed now", f"{bound} jobs"),
        ("first", _occurrence(group.first_seen, group.first_release, group.first_job)),
        ("last", _occurrence(group.last_seen, group.last_release, group.samples[0] if group.samples else None)),
        *_bars(group, interval), ("last jobs", " ".join(map(str, group.samples))),
    ]  # fmt: skip
    for name, value in rows:
        safe_echo(f"  {name:<11}{text(value)}")
    if record is not None and record.get("traceback"):
        traceback = mask_and_shorten(str(record["traceback"]))
        shown = application_part(traceback).strip()
        whole = "" if shown == traceback.strip() else f"; with the frames of libraries: qworker jobs show {sample}"
        safe_echo(f"\njob {sample}, attempt {text(record.get('attempt'))}{whole}")
        safe_echo(indent(shown, "    "))


def _change(name: str, state: GroupState, short: str, text_: str) -> None:
    @errors.command(name, short_help=short, help=text_)
    @fingerprint_argument
    @json_option
    @app_optional
    def change(target: Target, *, fingerprint: str, json_output: bool) -> None:
        changed = target.admin.change_error_group(fingerprint, state)
        if json_output:
            as_json({"fingerprint": fingerprint, "state": state, "changed": changed})
        else:
            safe_echo(f"group {fingerprint} {'is' if changed else 'was already'} {state}")


_change(
    "mute", GroupState.MUTED, "Keep a group out of the list.",
    "Keep a group out of the list. Its errors are still counted, and it does not reopen by itself.",
)  # fmt: skip
_change(
    "resolve", GroupState.RESOLVED, "Mark a group as fixed; it reopens if the error occurs again.",
    "Mark a group as fixed. If the error occurs again, the group reopens by itself; a node logs errors.reopened.",
)  # fmt: skip
_change(
    "reopen", GroupState.OPEN, "Show a muted or resolved group in the list again.",
    "Show a muted or resolved group in the list again.",
)  # fmt: skip


def _apply(action: Action, short: str, text_: str) -> None:
    @errors.command(action.value, short_help=short, help=text_)
    @fingerprint_argument
    @operation_options
    @app_optional
    def apply(target: Target, *, fingerprint: str, **options: Any) -> None:
        act_on_matching(target, action, target.admin.jobs_of_error_group(fingerprint), options)


_apply(
    Action.RETRY, "Retry all failed jobs of a group.",
    "Make all jobs of a group that are failed now available again, with all their attempts.",
)  # fmt: skip
_apply(
    Action.DISCARD, "Move all failed jobs of a group to the history.",
    "Move all jobs of a group that are failed now to the history, where they are kept for `history_days`.",
)  # fmt: skip


def _sample(jobs: list[Job], group: ErrorGroup) -> tuple[int, dict[str, Any] | None]:
    """Return the newest job of the group whose error is still stored, and that error."""
    for job in jobs:
        for record in reversed(job.errors):
            if record.get("fingerprint") == group.fingerprint:
                return job.id, dict(record)
    for job in jobs:  # a group without message has errors with many fingerprints
        if job.errors:
            return job.id, dict(job.errors[-1])
    return 0, None


def _interval(begin: datetime | None, end: datetime | None) -> Interval | None:
    """Return the time of --from and --to, and say so if its counts are not kept any more."""
    interval = moments.interval_of(begin, end, Interval.of_errors)
    if interval is not None and interval.begin < datetime.now(UTC) - timedelta(days=STAT_DAYS):
        safe_echo(f"counts of errors are kept for {STAT_DAYS} days: those before that are missing", err=True)
    return interval


def _bars(group: ErrorGroup, interval: Interval | None) -> list[tuple[str, str]]:
    if interval is None:
        return [("24 hours", sparkline(group.recent))]
    number = sum(group.recent)
    return [("then", f"{number:,} failed attempts {moments.words(interval)}"), ("", sparkline(group.recent))]


def _found_of(task: str | None, queue: str | None, since: timedelta | None) -> str:
    """Return what the list was restricted to, for the message that there is nothing."""
    parts = ([f" of task {task!r}"] if task else []) + ([f" in queue {queue!r}"] if queue else [])
    return "".join(parts) + ("" if since is None else f" in the last {format_duration(since.total_seconds())}")


def _title(group: ErrorGroup) -> str:
    return group.type if not group.message else f"{group.type}: {group.message}"


def _state(group: ErrorGroup) -> str:
    parts = [group.state.value]
    if group.changed_at is not None:
        parts.append(f"last changed {local_time(group.changed_at)} by {group.changed_by}")
    if group.reopened_at is not None:
        release = f" in release {group.reopened_release}" if group.reopened_release else ""
        parts.append(f"occurred again {local_time(group.reopened_at)}{release} after it was resolved")
    return ", ".join(parts)


def _occurrence(at: Any, release: str | None, job: int | None) -> str:
    parts = [local_time(at), *[f"release {release}"] * bool(release), *[f"job {job}"] * (job is not None)]
    return ", ".join(parts)


def _fields(group: ErrorGroup) -> dict[str, Any]:
    return {name: getattr(group, name) for name in ErrorGroup.__slots__}
