"""Show what nodes have counted: how many jobs ran, how long they waited and ran, what failed."""

from datetime import datetime
from typing import Any, NamedTuple

import click

from qworker.counts import Durations
from qworker.durations import format_duration
from qworker.nearest import suggestion
from qworker.statistics import PERIODS, TARGET_DRAIN, SeriesCounts, Statistics, load_as_dict
from qworkerd.cli import moments
from qworkerd.cli.completion import completing
from qworkerd.cli.options import Duration, app_optional, refuse, typed
from qworkerd.cli.tables import as_json, table
from qworkerd.config.target import Target

period_option = click.option(
    "--period", type=click.Choice([*PERIODS]), default="1h", show_default=True, help="The time before now."
)
drain_option = click.option(
    "--target-drain", metavar="DURATION", type=Duration(), default=TARGET_DRAIN,
    help="With --json: the time in which the wanted workers would run what waits. [default: 1m]",
)  # fmt: skip
json_option = click.option(
    "--json", "json_output", is_flag=True, help="Print JSON with all numbers, and the load of each queue."
)

HEAD = ("DONE", "FAILED", "RETRY", "CRASH", "WAIT", "P95", "RUN", "P95")
NOTHING = "no job of {} has ended {}; counts are up to two minutes late"


class Period(NamedTuple):
    """The time whose counts are shown."""

    seconds: float
    until: datetime | None
    #: When jobs have ended: "in the last 1h".
    words: str
    #: What JSON has of it.
    record: dict[str, Any]


def period_of(period: str, begin: datetime | None, end: datetime | None) -> Period:
    """Return the time of --period, or of --from and --to."""
    interval = moments.interval_of(begin, end)
    if interval is None:
        return Period(PERIODS[period], None, f"in the last {period}", {"period": period})
    if typed("period"):
        raise click.UsageError("pass --period, or --from and --to")
    record = {"from": interval.begin, "to": interval.end}
    return Period(interval.seconds, interval.end, moments.words(interval), record)


@click.command(short_help="Show how many jobs ran, and how long they waited and ran.")
@click.option("--queue", metavar="NAME", shell_complete=completing("queue"), help="Only this queue.")
@click.option("--task", metavar="NAME", shell_complete=completing("task"), help="Only this task.")
@period_option
@moments.between
@drain_option
@json_option
@app_optional
def stats(
    target: Target, *, queue: str | None, task: str | None, period: str, begin: datetime | None, end: datetime | None,
    target_drain: float, json_output: bool,
) -> None:  # fmt: skip
    """Show the attempts that have ended, by queue and task, and percentiles of the times that jobs waited and ran.

    A job has waited since it could start: its delay, its backoff and its earlier attempts are not part of the wait.
    Counts are up to two minutes late, and percentiles are off by at most 9 %.

    With --from and --to, the time has whole parts of what is kept: minutes in the last 70 minutes, ten minutes in the
    last 25 hours, or else hours. Counts are kept for 32 days.

    With --json, "queues" has the load of each queue as it is now, for autoscalers: see docs/monitoring.md.
    """
    if not json_output:
        refuse("target_drain", why="needs --json, which prints how many workers are wanted")
    statistics, wanted = Statistics(target.schema), period_of(period, begin, end)
    with target.connection("stats", statement_timeout=10.0) as database:
        found = statistics.tasks(database, wanted.seconds, until=wanted.until, queue=queue, task=task)
        load = statistics.load(database, queue=queue, target_drain=max(target_drain, 1.0)) if json_output else []
        hint = "" if found else misspelt(statistics.names(database), queue, task)
    if json_output:
        as_json({
            **wanted.record, "queues": {one.queue: load_as_dict(one) for one in load},
            "tasks": [_record(series) for series in found],
        })  # fmt: skip
        return
    subject = _subject(queue, task)
    show(("QUEUE", "TASK"), [((one.queue, one.task), one) for one in found], subject, wanted.words, hint)


def show(
    head: tuple[str, ...], rows: list[tuple[tuple[Any, ...], SeriesCounts]], subject: str, when: str, hint: str
) -> None:  # fmt: skip
    """Print a table of counts; when: in which time jobs have ended; hint: what was probably meant if none has."""
    nothing = NOTHING.format(subject, when) + hint
    table((*head, *HEAD), [(*names, *_cells(series)) for names, series in rows], empty=nothing)


def misspelt(names: list[tuple[str, str]], queue: str | None, task: str | None = None) -> str:
    """Return a suggestion for a queue or a task of which nothing was ever counted; names: the pairs that were."""
    for wanted, known in ((queue, {name for name, _ in names}), (task, {name for _, name in names})):
        if wanted is not None and wanted not in known:
            return suggestion(wanted, known)
    return ""


def _cells(series: SeriesCounts) -> tuple[object, ...]:
    counts = series.counts
    return (
        counts.succeeded, counts.failed, counts.retried, counts.crashed,
        *_percentiles(counts.wait), *_percentiles(counts.run),
    )  # fmt: skip


def _percentiles(durations: Durations) -> tuple[str | None, str | None]:
    median, high = durations.quantile(0.5), durations.quantile(0.95)
    return (None if median is None else format_duration(median)), (None if high is None else format_duration(high))


def _record(series: SeriesCounts) -> dict[str, Any]:
    return {"queue": series.queue, "task": series.task, **series.counts.as_dict()}


def _subject(queue: str | None, task: str | None) -> str:
    parts = ([f"task {task!r}"] if task else []) + ([f"queue {queue!r}"] if queue else [])
    return " in ".join(parts) or "any task"
