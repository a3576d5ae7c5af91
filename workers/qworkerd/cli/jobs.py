"""Inspect jobs, and retry, cancel or discard them."""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from textwrap import indent
from typing import Any

import click

from qworker.admin import Admin
from qworker.decoding import Unreadable
from qworker.errors import JobNotFound
from qworker.job import Job, JobState
from qworker.queues import QueuePause
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.running import Run, local_time, runs
from qworkerd.cli.tables import as_json, job_as_dict, safe_echo, table, text
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask_and_shorten, mask_json
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
            self.fail(f"{value!r} is not the id of a job: pass a number as shown by `qworker jobs list`", param, ctx)
        return number


IDS = JobId()
STATES = click.Choice([state.value for state in JobState if state is not JobState.FORGOTTEN])
#: Options that filter the list.
FILTERS = ("state", "queue", "task", "tag", "below")
#: The states of jobs that wait while their queue is paused.
WAITING = (JobState.AVAILABLE, JobState.SCHEDULED)
#: Maximum number of jobs changed by one statement.
PAGE = 500


@click.group()
@options("app", "schema")
def jobs(**_: str | None) -> None:
    """Inspect jobs, and retry, cancel or discard them."""


@jobs.command("list")
@click.option("--state", type=STATES, metavar="STATE", help=f"Only jobs in this state: {', '.join(STATES.choices)}.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option("--tag", metavar="TAG", help="Only jobs with this tag.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, metavar="N", help="Maximum number of jobs. [default: 50]"
)
@click.option("--below", type=IDS, metavar="ID", help="Only jobs with a lower id: continues an earlier list.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array with all fields of each job.")
@app_optional
def list_(target: Target, *, json_output: bool, **wanted: Any) -> None:
    """List unfinished and finished jobs, the newest first."""
    found = target.admin.find(**wanted)
    if json_output:
        as_json([job_as_dict(job) for job in found])
        return
    head = ("ID", "STATE", "QUEUE", "TASK", "ATTEMPT", "ENQUEUED", "NOTE")
    where, paused = _runs(target, found), _pauses(target, found)
    table(
        head,
        [(j.id, j.state, j.queue, _task(j), j.attempt, _when(j.enqueued_at), _note(j, where, paused)) for j in found],
        note=True,
        empty="no jobs" if all(wanted[name] is None for name in FILTERS) else "no matching jobs",
    )
    if len(found) == wanted["limit"]:
        click.echo(f"there may be more: --below {found[-1].id}", err=True)


@jobs.command(short_help="Show everything about a job.")
@click.argument("job_id", metavar="ID", type=IDS)
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@app_optional
def show(target: Target, *, job_id: int, json_output: bool) -> None:
    """Show a job: arguments, times, progress, the worker that runs it, and the error of each failed attempt."""
    job = target.admin.show(job_id)
    run, pause = _runs(target, [job]).get(job_id), _pauses(target, [job]).get(job.queue)
    if json_output:
        as_json(job_as_dict(job) | {"run": run, "paused": pause})
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
    for error in job.errors:
        _describe(error)


@jobs.command()
@click.argument("ids", metavar="ID...", nargs=-1, type=IDS)
@click.option("--all-failed", is_flag=True, help="Retry all failed jobs; limited by --queue and --task.")
@click.option("--queue", metavar="NAME", help="With --all-failed: only jobs of this queue.")
@click.option("--task", metavar="NAME", help="With --all-failed: only jobs of this task.")
@app_optional
def retry(target: Target, *, ids: tuple[int, ...], all_failed: bool, queue: str | None, task: str | None) -> None:
    """Make failed jobs available again, with all their attempts."""
    if all_failed == bool(ids) or (ids and (queue or task)):
        raise click.UsageError("pass the ids of jobs, or --all-failed with an optional --queue or --task")
    if all_failed:
        click.echo(f"failed jobs made available again: {_retry_all(target.admin, queue, task)}")
        return
    done = {job_id: "available again" for page in _pages(ids) for job_id in target.admin.retry(*page)}
    _report(target.admin, ids, done, "only failed jobs can be retried")


@jobs.command(short_help="Cancel jobs, including running ones.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=IDS)
@app_optional
def cancel(target: Target, *, ids: tuple[int, ...]) -> None:
    """Cancel jobs. Waiting jobs are cancelled at once; running jobs are interrupted within about a second."""
    words = {JobState.RUNNING: "running, cancellation requested"}
    done = {
        job_id: words.get(state, str(state))
        for page in _pages(ids)
        for job_id, state in target.admin.cancel(*page).items()
    }
    _report(target.admin, ids, done, "only unfinished jobs can be cancelled")


@jobs.command(short_help="Move failed jobs to the history.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=IDS)
@app_optional
def discard(target: Target, *, ids: tuple[int, ...]) -> None:
    """Move failed jobs to the history, where they are kept for `history_days`."""
    done = {job_id: "discarded" for page in _pages(ids) for job_id in target.admin.discard(*page)}
    _report(target.admin, ids, done, "only failed jobs can be discarded")


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


def _report(admin: Admin, ids: Iterable[int], done: dict[int, str], rule: str) -> None:
    """Print the new state of each job; exit with status 1 if a job could not be changed."""
    missed = False
    for job_id in dict.fromkeys(ids):
        if job_id in done:
            safe_echo(f"job {job_id} is {done[job_id]}")
            continue
        missed = True
        try:
            safe_echo(f"job {job_id} is {admin.show(job_id).state}: {rule}", err=True)
        except JobNotFound as error:
            safe_echo(str(error), err=True)
    if missed:
        click.get_current_context().exit(exits.FAILURE)


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
