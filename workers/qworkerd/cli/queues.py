"""Show the queues with the number of their jobs; pause and resume queues."""

from dataclasses import asdict
from datetime import datetime

import click

from qworker.durations import format_duration
from qworker.job import JobState
from qworker.nearest import suggestion
from qworker.queues import QueueStatus
from qworker.statistics import Statistics
from qworkerd.cli import moments
from qworkerd.cli.completion import completing
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.stats import misspelt, period_of, period_option, show
from qworkerd.cli.subcommands import ListingGroup
from qworkerd.cli.tables import as_json, safe_echo, table, text
from qworkerd.config.target import Target
from qworkerd.process import exits

STATES = (JobState.AVAILABLE, JobState.RUNNING, JobState.SCHEDULED, JobState.BLOCKED, JobState.FAILED)

json_option = click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")


@click.group(cls=ListingGroup, short_help="Show the number of jobs in each queue; pause and resume queues.")
@options("app", "schema")
def queues(**_: str | None) -> None:
    """Show the number of jobs of each queue by state, the age of the oldest available job, and the nodes that serve it.

    Finished jobs are not counted. Empty queues are shown if a node serves them or if they are paused.

    Without a subcommand, `queues` takes the options of `queues list`: `qworker queues --json`.
    """


@queues.command("list", short_help="List the queues, as `queues` without a subcommand does.")
@json_option
@app_optional
def list_(target: Target, *, json_output: bool) -> None:
    """Print all queues."""
    found = target.admin.queues()
    if json_output:
        as_json({queue.name: _record(queue) for queue in found})
        return
    # The columns are omitted if no job is blocked and no queue paused, which leaves more space for the others.
    blocked = any(JobState.BLOCKED in queue.jobs for queue in found)
    paused = any(queue.paused for queue in found)
    states = [state for state in STATES if state is not JobState.BLOCKED or blocked]
    head = ("QUEUE", *(state.value.upper() for state in states), "OLDEST", "SERVED BY", *["PAUSED"] * paused)
    table(head, [
        (queue.name, *(_number(queue, state) for state in states),
         None if queue.oldest_age is None else format_duration(queue.oldest_age), queue.nodes or "no live node",
         *[str(queue.paused or "")] * paused)
        for queue in found
    ], note=paused, empty="no queue has jobs, and no node serves one")  # fmt: skip


@queues.command("show", short_help="Show everything about a queue.")
@click.argument("name", metavar="NAME", shell_complete=completing("queue"))
@json_option
@app_optional
def show_(target: Target, *, name: str, json_output: bool) -> None:
    """Show the jobs of a queue by state, the nodes that serve it, its pause, and the last actions on it.

    Exits with status 1 if the queue is not paused, has no jobs, and no live node serves it.
    """
    found = {queue.name: queue for queue in target.admin.queues()}
    if name not in found:
        hint = suggestion(name, list(found))
        safe_echo(f"queue {name!r} is not paused, has no jobs, and no live node serves it{hint}", err=True)
        click.get_current_context().exit(exits.FAILURE)
    queue, actions = found[name], target.admin.audit(queue=name, limit=10)
    if json_output:
        as_json(_record(queue) | {"audit": actions})
        return
    facts = {"queue": name, **{state.value: _number(queue, state) for state in queue.jobs}}
    facts["oldest"] = "-" if queue.oldest_age is None else f"{format_duration(queue.oldest_age)} (available)"
    facts["served by"] = ", ".join(queue.nodes) or "no live node"
    if queue.paused:
        facts["paused"] = str(queue.paused)
    for title, value in facts.items():
        safe_echo(f"{title:<12} {value}")
    for entry in actions:
        note = f": {entry.note}" if entry.note else ""
        safe_echo(f"{entry.action.partition('.')[2]:<12} {text(entry.at)} by {entry.actor}, {entry.via}{note}")


@queues.command(short_help="Stop all nodes from claiming jobs of a queue.")
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=completing("queue"))
@click.option("--all", "all_queues", is_flag=True, help="All queues that have jobs or that a live node serves.")
@click.option("--reason", metavar="TEXT", help="The reason, which is shown with the pause.")
@json_option
@app_optional
def pause(target: Target, *, names: tuple[str, ...], all_queues: bool, reason: str | None, json_output: bool) -> None:
    """Pause queues on all nodes: running jobs finish, and no other job of these queues starts until they are resumed.

    Jobs can still be enqueued, retried and cancelled, and schedules still tick. The pause takes effect within about a
    second, and lasts until the queue is resumed, even if nodes are restarted. If a queue was already paused, the time
    and the reason of its pause do not change.
    """
    known = [queue.name for queue in target.admin.queues()]
    wanted = _wanted(names, known, all_queues=all_queues)
    try:
        changed = target.admin.pause(*wanted, reason=reason)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _print(target, wanted, changed, ("is paused", "was already paused"), json_output=json_output)
    if all_queues and not wanted:
        safe_echo("no queue has jobs, and no node serves one", err=True)
    for name in wanted:
        if name not in known:
            hint = suggestion(name, known)
            safe_echo(f"warning: queue {name!r} has no jobs, and no live node serves it{hint}", err=True)


@queues.command(short_help="Allow nodes to claim jobs of a paused queue again.")
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=completing("queue"))
@click.option("--all", "all_queues", is_flag=True, help="All paused queues.")
@json_option
@app_optional
def resume(target: Target, *, names: tuple[str, ...], all_queues: bool, json_output: bool) -> None:
    """Resume paused queues: their jobs start in the usual order.

    Exits with status 1 if a queue is neither paused nor served and has no jobs: its name is probably misspelt.
    """
    before = target.admin.queues()
    paused = [queue.name for queue in before if queue.paused]
    wanted = _wanted(names, paused, all_queues=all_queues)
    changed = target.admin.resume(*wanted)
    unknown = [name for name in wanted if name not in changed and name not in {queue.name for queue in before}]
    found = [name for name in wanted if name not in unknown]
    _print(target, found, changed, ("is resumed", "was not paused"), json_output=json_output)
    if all_queues and not wanted:
        safe_echo("no queue is paused", err=True)
    for name in unknown:
        safe_echo(
            f"queue {name!r} is not paused, has no jobs, and no live node serves it{suggestion(name, paused)}",
            err=True,
        )
    if unknown:
        click.get_current_context().exit(exits.FAILURE)


@queues.command(short_help="Show how many jobs of each queue ran, and how long they waited and ran.")
@click.argument("name", required=False, shell_complete=completing("queue"))
@period_option
@moments.between
@json_option
@app_optional
def stats(
    target: Target, *, name: str | None, period: str, begin: datetime | None, end: datetime | None, json_output: bool
) -> None:
    """Show what nodes have counted of each queue, or of one: see `qworker stats`."""
    statistics, wanted = Statistics(target.schema), period_of(period, begin, end)
    with target.connection("stats", statement_timeout=10.0) as database:
        found = statistics.queues(database, wanted.seconds, until=wanted.until, queue=name)
        hint = "" if found else misspelt(statistics.names(database), name)
    if json_output:
        as_json({series.queue: series.counts.as_dict() for series in found})
        return
    subject = "any task" if name is None else f"queue {name!r}"
    show(("QUEUE",), [((series.queue,), series) for series in found], subject, wanted.words, hint)


def _wanted(names: tuple[str, ...], every: list[str], *, all_queues: bool) -> list[str]:
    """Return the queues that a command applies to."""
    if all_queues == bool(names):
        raise click.UsageError("pass the names of queues, or --all")
    return every if all_queues else list(dict.fromkeys(names))


def _print(target: Target, names: list[str], changed: list[str], words: tuple[str, str], *, json_output: bool) -> None:
    """Print for each queue the first of the words if it was changed, and the second if not."""
    pauses = {pause.queue: pause for pause in target.admin.paused(*names)} if names else {}
    if json_output:
        as_json({name: {"changed": name in changed, "paused": pauses.get(name)} for name in names})
        return
    for name in names:
        details = f" {pauses[name]}" if name in pauses else ""
        safe_echo(f"queue {name!r} {words[name not in changed]}{details}")


def _number(queue: QueueStatus, state: JobState) -> int | str:
    """Return the number of jobs in a state; an estimate is marked."""
    number = queue.jobs.get(state, 0)
    return number if queue.exact or not number else f"~{number}"


def _record(queue: QueueStatus) -> dict[str, object]:
    rest = {name: value for name, value in asdict(queue).items() if name not in ("name", "jobs")}
    return {state.value: queue.jobs.get(state, 0) for state in STATES} | rest
