"""Inspect and change jobs."""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from textwrap import indent
from typing import Any

import click
import psycopg

from qworker import program
from qworker.audit import AuditEntry
from qworker.decoding import Unreadable
from qworker.filters import Filter
from qworker.job import Job, JobState
from qworker.queues import QueuePause
from qworker.search import PATIENT, Order, Page
from qworkerd.cli.actions import COMMANDS
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.running import Run, local_time, runs
from qworkerd.cli.subcommands import LazyGroup
from qworkerd.cli.tables import as_json, job_as_dict, safe_echo, table, text
from qworkerd.cli.wanted import FilterCommand, filter_argument, filter_of
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask_and_shorten, mask_json


class JobId(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """The id of a job."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            number = int(value)
        except ValueError:
            number = 0
        if not 1 <= number < 2**63:
            shown = program.command("jobs list")
            self.fail(f"{value!r} is not the id of a job: pass a number as shown by `{shown}`", param, ctx)
        return number


IDS = JobId()
#: The states of jobs that wait while their queue is paused.
WAITING = (JobState.AVAILABLE, JobState.SCHEDULED)
#: The modules of commands that are imported on demand.
MODULES = {"compare": "qworkerd.cli.job_compare", "logs": "qworkerd.cli.job_logs", "stack": "qworkerd.cli.job_stack"}


@click.group(cls=LazyGroup, modules=MODULES)
@options("app", "schema")
def jobs(**_: str | None) -> None:
    """Inspect and change jobs."""


for command in COMMANDS:
    jobs.add_command(command)


@jobs.command("list", cls=FilterCommand, short_help="List unfinished and finished jobs.")
@filter_argument()
@click.option(
    "--sort", "order", type=click.Choice([each.value for each in Order]), default=Order.NEWEST.value,
    help="newest or oldest first, or the slowest among the jobs looked at. [default: newest]",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, metavar="N", help="Maximum number of jobs. [default: 50]"
)
@click.option("--below", type=IDS, metavar="ID", help="Only jobs with a lower id: continues an earlier list.")
@click.option("--above", type=IDS, metavar="ID", help="Only jobs with a higher id: continues a list of the oldest.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array with all fields of each job.")
@app_optional
def list_(
    target: Target, *, words: tuple[str, ...], order: str, limit: int, below: int | None, above: int | None,
    json_output: bool,
) -> None:  # fmt: skip
    """List unfinished and finished jobs that match FILTER, the newest first.

    FILTER is like `queue:mail,default state:failed error:TimeoutError 'age:>1h' -tag:test`; docs/filters.md has the
    keys.
    If no index serves it, a search looks at a limited number of jobs, and says where to continue.
    """
    wanted = filter_of(words)
    oldest = order == Order.OLDEST
    if (below if oldest else above) is not None:
        raise click.UsageError("pass --above with --sort oldest, and --below without it")
    page = target.search.page(
        wanted, order=Order(order), cursor=above if oldest else below, limit=limit, time_limit=PATIENT
    )
    if json_output:
        as_json([job_as_dict(job) for job in page.jobs])
    else:
        _print(target, page, wanted, first=below is None and above is None)
    if page.cursor is not None:
        continued = f"--above {page.cursor}" if oldest else f"--below {page.cursor}"
        safe_echo(f"{_searched(page, wanted)}; continue with {continued}", err=True)


@jobs.command(short_help="Show everything about a job.")
@click.argument("job_id", metavar="ID", type=IDS)
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@app_optional
def show(target: Target, *, job_id: int, json_output: bool) -> None:
    """Show a job: arguments, times, progress, the worker that runs it, and the error of each failed attempt."""
    job = target.admin.show(job_id)
    run, pause = _runs(target, [job]).get(job_id), _pauses(target, [job]).get(job.queue)
    actions = _actions(target, job_id)
    if json_output:
        as_json(job_as_dict(job) | {"run": run, "paused": pause, "audit": actions})
        return
    for name, value in job_as_dict(job).items():
        if name in ("args", "result", "progress", "meta") and value is not None:
            safe_echo(f"{name:<12} {json.dumps(mask_json(value), ensure_ascii=False)}")
        elif name != "errors" and value not in (None, ()) and value is not False:
            safe_echo(f"{name:<12} {text(value)}{' s' if name == 'duration' else ''}")
    if run is not None:
        safe_echo(f"{'runs':<12} {run}")
    if pause is not None:
        safe_echo(f"{'paused':<12} the queue, {pause}")
    for entry in actions:
        note = f": {entry.note}" if entry.note else ""
        safe_echo(f"{entry.action.partition('.')[2]:<12} {text(entry.at)} by {entry.actor}, {entry.via}{note}")
    if fingerprint := job.errors[-1].get("fingerprint") if job.errors else None:
        safe_echo(f"{'like it':<12} {program.command(f'errors show {fingerprint}')}")
    for error in job.errors:
        _describe(error)


def _actions(target: Target, job_id: int) -> list[AuditEntry]:
    """Return what was done to a job by hand, newest first; nothing if the role may not read the audit."""
    try:
        return target.admin.audit(job=job_id)
    except psycopg.errors.InsufficientPrivilege:
        return []


def _print(target: Target, page: Page, wanted: Filter, *, first: bool) -> None:
    head = ("ID", "STATE", "QUEUE", "TASK", "ATTEMPT", "ENQUEUED", "NOTE")
    where, paused = _runs(target, page.jobs), _pauses(target, page.jobs)
    empty = "" if page.cursor is not None else "no matching jobs" if wanted.terms or not first else "no jobs"
    rows = [
        (j.id, j.state, j.queue, _task(j), j.attempt, _when(j.enqueued_at), _note(j, where, paused)) for j in page.jobs
    ]
    table(head, rows, note=True, empty=empty)


def _searched(page: Page, wanted: Filter) -> str:
    """Return how far a search has looked, and why not further."""
    if page.looked_back_to is None:
        return "there may be more"
    terms = " ".join(map(str, wanted.unindexed))
    found = f"{len(page.jobs)} found" if page.jobs else "none found"
    return (
        f"{found} among the jobs searched so far, to {_when(page.looked_back_to)} (no index serves {terms or 'this'})"
    )


def _runs(target: Target, found: Iterable[Job]) -> dict[int, Run]:
    """Return the runs of the jobs; the nodes are queried only if a job is running."""
    return runs(target.admin.nodes()) if any(job.state is JobState.RUNNING for job in found) else {}


def _pauses(target: Target, found: Iterable[Job]) -> dict[str, QueuePause]:
    """Return the pauses of the queues of jobs that wait; they are queried only if there are such jobs."""
    waiting = {job.queue for job in found if job.state in WAITING}
    return {pause.queue: pause for pause in target.admin.paused(*waiting)} if waiting else {}


def _task(job: Job) -> str:
    """Return the name of the task, marked if the job is its failure hook."""
    return f"{job.task} (on_failure)" if job.hook else job.task


def _note(job: Job, where: Mapping[int, Run], paused: Collection[str]) -> str:
    """Return what is most useful to know about a job in its state: when it is due, how long it ran, its last error."""
    if job.state in WAITING and job.queue in paused:
        return "its queue is paused"
    if job.state is JobState.SCHEDULED:
        return f"due {_when(job.run_at)}"
    if job.state is JobState.COMPLETED:
        return f"took {text(job.duration)} s"
    if job.state is JobState.RUNNING:
        parts = [
            _progress(job),
            str(where[job.id]) if job.id in where else f"claimed {_when(job.claimed_at)}",
        ]
        return ", ".join(part for part in parts if part)
    return _last_error(job) if job.errors else ""


def _last_error(job: Job) -> str:
    last = job.errors[-1]
    if isinstance(last, Unreadable):
        return f"an error that cannot be read: {last['unreadable']}"
    cause, message = text(last.get("cause") or last.get("type")), text(last.get("message"))
    return message if cause in message else f"{cause}: {message}"


def _when(at: datetime | None) -> str:
    return text(None) if at is None else local_time(at)


def _progress(job: Job) -> str:
    if not job.progress:
        return ""
    fraction, message = job.progress.get("fraction", 0), job.progress.get("text")
    done = f"{fraction:.0%}" if isinstance(fraction, int | float) and 0 <= fraction <= 1 else text(fraction)[:12]
    return f"{done} {text(message)}" if message else done


def _describe(error: Mapping[str, Any]) -> None:
    safe_echo()
    if isinstance(error, Unreadable):
        safe_echo(f"an error that cannot be read: {error['unreadable']}: {text(error['text'])}")
        return
    at = error.get("at")
    with suppress(TypeError, ValueError):
        at = datetime.fromisoformat(at or "")
    cause = f" ({text(error['cause'])})" if error.get("cause") else ""
    title = f"attempt {text(error.get('attempt'))}, {text(at)}: {text(error.get('type'))}{cause}"
    safe_echo(f"{title}: {indent(mask_and_shorten(str(error.get('message'))), '    ').lstrip()}")
    if error.get("phase"):  # the record of a dead worker
        safe_echo(
            f"    while {text(error['phase'])}, after {text(error.get('ran'))} s; the worker's peak memory"
            f" {text(error.get('maxrss_mib'))} MiB, its processor time {text(error.get('cpu'))} s"
        )
    if error.get("traceback"):
        safe_echo(indent(mask_and_shorten(str(error["traceback"])).rstrip(), "    "))
