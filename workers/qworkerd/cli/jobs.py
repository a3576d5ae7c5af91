"""Inspect jobs, and retry, cancel or discard them."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from textwrap import indent
from typing import Any

import click

from qworker.admin import Admin
from qworker.decoding import Unreadable
from qworker.errors import JobNotFound
from qworker.job import Job, JobState
from qworkerd.cli.options import looking, options
from qworkerd.cli.running import Run, brief, runs
from qworkerd.cli.tables import as_json, record, say, table, text
from qworkerd.config.target import Target
from qworkerd.log.redaction import clip, keep
from qworkerd.process import exits


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
            self.fail(f"{value!r} is not the id of a job: a number, as `qworker jobs list` shows it", param, ctx)
        return number


IDS = JobId()
STATES = click.Choice([state.value for state in JobState if state is not JobState.FORGOTTEN])
#: Options that filter the list.
FILTERS = ("state", "queue", "task", "tag", "below")
#: Maximum number of jobs changed by one statement.
PAGE = 500


@click.group()
@options("app", "schema")
def jobs(**_: str | None) -> None:
    """Inspect jobs, and change them by hand."""


@jobs.command("list")
@click.option("--state", type=STATES, metavar="STATE", help=f"Only jobs in this state: {', '.join(STATES.choices)}.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option("--tag", metavar="WORD", help="Only jobs with this tag.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, metavar="N", help="At most N. [default: 50]")
@click.option("--below", type=IDS, metavar="ID", help="Only jobs with a lower id: continues an earlier list.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON array with all fields of each job.")
@looking
def list_(to: Target, *, for_programs: bool, **wanted: Any) -> None:
    """List jobs, the newest first, finished ones included."""
    found = to.admin.find(**wanted)
    if for_programs:
        as_json([record(job) for job in found])
        return
    head = ("ID", "STATE", "QUEUE", "TASK", "ATTEMPT", "ENQUEUED", "NOTE")
    where = _runs(to, found)
    table(
        head,
        [(j.id, j.state, j.queue, _task(j), j.attempt, _when(j.enqueued_at), _note(j, where)) for j in found],
        note=True,
        empty="no jobs" if all(wanted[name] is None for name in FILTERS) else "no such jobs",
    )
    if len(found) == wanted["limit"]:
        click.echo(f"there may be more: --below {found[-1].id}", err=True)


@jobs.command(short_help="Show everything about a job.")
@click.argument("job_id", metavar="ID", type=IDS)
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")
@looking
def show(to: Target, *, job_id: int, for_programs: bool) -> None:
    """Show a job: arguments, times, progress, where it runs, and the error of every failed attempt."""
    job = to.admin.show(job_id)
    run = _runs(to, [job]).get(job_id)
    if for_programs:
        as_json(record(job) | {"run": run})
        return
    for name, value in record(job).items():
        if name in ("args", "result", "progress", "meta") and value is not None:
            say(f"{name:<12} {json.dumps(keep(value), ensure_ascii=False)}")
        elif name != "errors" and value not in (None, ()) and value is not False:
            say(f"{name:<12} {text(value)}{' s' if name == 'duration' else ''}")
    if run is not None:
        say(f"{'runs':<12} {run}")
    for error in job.errors:
        _describe(error)


@jobs.command()
@click.argument("ids", metavar="ID...", nargs=-1, type=IDS)
@click.option("--all-failed", is_flag=True, help="All failed jobs; with --queue or --task only theirs.")
@click.option("--queue", metavar="NAME", help="With --all-failed: only jobs of this queue.")
@click.option("--task", metavar="NAME", help="With --all-failed: only jobs of this task.")
@looking
def retry(to: Target, *, ids: tuple[int, ...], all_failed: bool, queue: str | None, task: str | None) -> None:
    """Run failed jobs again, with all their attempts."""
    if all_failed == bool(ids) or (ids and (queue or task)):
        raise click.UsageError("give the ids of jobs, or --all-failed with an optional --queue or --task")
    if all_failed:
        click.echo(f"failed jobs made available again: {_retry_all(to.admin, queue, task)}")
        return
    done = {job_id: "available again" for page in _pages(ids) for job_id in to.admin.retry(*page)}
    _tell(to.admin, ids, done, "only failed jobs can be retried")


@jobs.command(short_help="Cancel jobs, including running ones.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=IDS)
@looking
def cancel(to: Target, *, ids: tuple[int, ...]) -> None:
    """Cancel jobs: waiting jobs at once; running jobs are interrupted within about a second."""
    words = {JobState.RUNNING: "running, asked to stop"}
    done = {
        job_id: words.get(state, str(state)) for page in _pages(ids) for job_id, state in to.admin.cancel(*page).items()
    }
    _tell(to.admin, ids, done, "only unfinished jobs can be cancelled")


@jobs.command(short_help="Move failed jobs to the history.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=IDS)
@looking
def discard(to: Target, *, ids: tuple[int, ...]) -> None:
    """Move failed jobs to the history, where they are kept for history_days."""
    done = {job_id: "discarded" for page in _pages(ids) for job_id in to.admin.discard(*page)}
    _tell(to.admin, ids, done, "only failed jobs can be discarded")


def _pages(ids: Iterable[int]) -> Iterable[list[int]]:
    ordered = sorted(set(ids))
    return (ordered[at : at + PAGE] for at in range(0, len(ordered), PAGE))


def _retry_all(admin: Admin, queue: str | None, task: str | None) -> int:
    """Retry page by page in descending order, so that a job that fails again meanwhile is not retried twice."""
    count, below = 0, None
    while page := admin.find(state=JobState.FAILED, queue=queue, task=task, below=below, limit=PAGE):
        count += len(admin.retry(*(job.id for job in page)))
        below = page[-1].id
    return count


def _tell(admin: Admin, ids: Iterable[int], done: dict[int, str], rule: str) -> None:
    """Print the new state of each job; exit with status 1 if a job could not be changed."""
    missed = False
    for job_id in dict.fromkeys(ids):
        if job_id in done:
            say(f"job {job_id} is {done[job_id]}")
            continue
        missed = True
        try:
            say(f"job {job_id} is {admin.show(job_id).state}: {rule}", err=True)
        except JobNotFound as error:
            say(str(error), err=True)
    if missed:
        click.get_current_context().exit(exits.FAILURE)


def _runs(to: Target, found: Iterable[Job]) -> dict[int, Run]:
    """Return the runs of the jobs; the nodes are queried only if a job is running."""
    return runs(to.admin.nodes()) if any(job.state is JobState.RUNNING for job in found) else {}


def _task(job: Job) -> str:
    """Return the name of the task, marked if the job is its failure hook."""
    return f"{job.task} (on_failure)" if job.hook else job.task


def _note(job: Job, where: Mapping[int, Run]) -> str:
    """Return the most useful fact about a job."""
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
    if job.errors:
        last = job.errors[-1]
        if isinstance(last, Unreadable):
            return f"an error that cannot be read: {last['unreadable']}"
        cause, said = text(last.get("cause") or last.get("type")), text(last.get("message"))
        return said if cause in said else f"{cause}: {said}"
    return ""


def _when(at: datetime | None) -> str:
    return text(None) if at is None else brief(at)


def _progress(job: Job) -> str:
    if not job.progress:
        return ""
    fraction, said = job.progress.get("fraction", 0), job.progress.get("text")
    done = f"{fraction:.0%}" if isinstance(fraction, int | float) and 0 <= fraction <= 1 else text(fraction)[:12]
    return f"{done} {text(said)}" if said else done


def _describe(error: Mapping[str, Any]) -> None:
    say()
    if isinstance(error, Unreadable):
        say(f"an error that cannot be read: {error['unreadable']}: {text(error['text'])}")
        return
    at = error.get("at")
    with suppress(TypeError, ValueError):
        at = datetime.fromisoformat(at or "")
    cause = f" ({text(error['cause'])})" if error.get("cause") else ""
    title = f"attempt {text(error.get('attempt'))}, {text(at)}: {text(error.get('type'))}{cause}"
    say(f"{title}: {indent(clip(str(error.get('message'))), '    ').lstrip()}")
    if error.get("phase"):  # the record of a dead worker
        say(
            f"    while {text(error['phase'])}, after {text(error.get('ran'))} s; the worker's peak memory"
            f" {text(error.get('maxrss_mib'))} MiB, its processor time {text(error.get('cpu'))} s"
        )
    if error.get("traceback"):
        say(indent(clip(str(error["traceback"])).rstrip(), "    "))
