"""Show the log lines of a job: those that are stored, and those of its running attempt as they are written."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from textwrap import indent
from time import sleep

import click
import psycopg

from qworker.admin import Admin
from qworker.job import Job, JobState
from qworker.job_logs import AttemptLog, LogLine
from qworkerd.cli.jobs import IDS
from qworkerd.cli.options import app_optional
from qworkerd.cli.tables import as_json, as_json_line, safe_echo, text
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask_and_shorten
from qworkerd.process import exits

#: Seconds between two looks for new lines.
POLL = 0.4
_MULTILINE = ("exception", "stack")


@click.command(short_help="Show what a job has logged.")
@click.argument("job_id", metavar="ID", type=IDS)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only this attempt.")
@click.option("-f", "--follow", is_flag=True, help="Show new lines as they are written, until the job ends.")
@click.option(
    "--json", "json_output", is_flag=True,
    help="Print a JSON array of attempts with their lines; with --follow, an object for each line.",
)  # fmt: skip
@app_optional
def logs(target: Target, *, job_id: int, attempt: int | None, follow: bool, json_output: bool) -> None:
    """Show what the attempts of a job have logged: the last 200 lines, or 32 kB, of each.

    Nodes store the lines of failed attempts; with job_logs = all, those of all attempts. Lines below the `log_level` of
    the node are not kept, and none with job_logs = off. Exits with status 1 if no lines are stored.

    With --follow, lines of the running attempt appear within about a second, through retries and on whatever node the
    job runs. The command ends with the job.
    """
    if follow:
        _follow(target.admin, job_id, attempt, json_output=json_output)
        return
    job = target.admin.show(job_id)
    found = target.admin.logs(job_id, attempt)
    if json_output:
        as_json(found)
    else:
        _print(found)
    if not any(log.lines for log in found):
        which = "" if attempt is None else f"attempt {attempt} of "
        safe_echo(f"no log lines are stored for {which}job {job_id}, which is {job.state}: {_reason(job)}", err=True)
        click.get_current_context().exit(exits.FAILURE)


def _reason(job: Job) -> str:
    if job.state is JobState.RUNNING:
        return "pass --follow to see those of the running attempt"
    return "they are kept for attempts that fail; with job_logs = all, for all attempts, for `log_days` days"


def _follow(admin: Admin, job_id: int, attempt: int | None, *, json_output: bool) -> None:
    """Print lines until the job has ended."""
    cursor: str | None = None
    shown: AttemptLog | None = None
    shown_state, ended = "", False
    with _followed(admin, job_id):
        while True:
            found = admin.lines_after(job_id, cursor, follow=True)
            cursor = found.cursor
            for log in found.attempts:
                if attempt not in (None, log.attempt):
                    continue
                if json_output:
                    for line in log.lines:
                        as_json_line(line)
                else:
                    _print([log], head=shown is None or shown.key != log.key)
                shown = log
            if (state := _state(found.job, found.problem)) != shown_state:
                shown_state = state
                safe_echo(state, err=True)
            if ended:
                return
            # A transactional job ends in its own transaction, and its last lines are stored after it.
            ended = found.job.finished or found.job.state is JobState.FAILED
            sleep(POLL)


@contextmanager
def _followed(admin: Admin, job_id: int) -> Iterator[None]:
    """Leave no request behind."""
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # it expires by itself
            admin.unfollow(job_id)


def _state(job: Job, problem: str | None) -> str:
    """Return what to tell a follower about the job."""
    if job.state is JobState.RUNNING and problem is not None:
        return f"job {job.id} is running, attempt {job.attempt}, but {problem}"
    if job.state is JobState.RUNNING:
        return f"job {job.id} is running, attempt {job.attempt}"
    return f"job {job.id} is {job.state}"


def _print(logs: Iterable[AttemptLog], *, head: bool = True) -> None:
    for log in logs:
        dropped = f"{log.dropped:,} earlier lines were not kept" if log.dropped else ""
        if head:
            safe_echo(f"attempt {log.attempt}" + (f" ({dropped})" if dropped else ""))
        elif dropped:
            safe_echo(f"({dropped})")
        for line in log.lines:
            _print_line(line)


def _print_line(line: LogLine) -> None:
    at = "-" if line.at is None else line.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    fields = " ".join(f"{key}={text(value)}" for key, value in line.fields.items() if key not in _MULTILINE)
    event = indent(mask_and_shorten(line.event), "    ").lstrip()
    safe_echo(f"{at} {line.level:<8} {event}{'  ' if fields else ''}{fields}")
    for key in _MULTILINE:
        if line.fields.get(key):
            safe_echo(indent(mask_and_shorten(str(line.fields[key])).rstrip(), "    "))
