"""Show the queues with the number of their jobs; pause and resume queues."""

from dataclasses import asdict
from difflib import get_close_matches

import click

from qworker.job import JobState
from qworker.queues import QueueStatus
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.config.durations import format_duration
from qworkerd.config.target import Target
from qworkerd.process import exits

STATES = (JobState.AVAILABLE, JobState.RUNNING, JobState.SCHEDULED, JobState.BLOCKED, JobState.FAILED)

json_option = click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")


@click.group(invoke_without_command=True, short_help="Show the number of jobs in each queue; pause and resume queues.")
@json_option
@options("app", "schema")
@click.pass_context
def queues(context: click.Context, /, *, json_output: bool, **_: str | None) -> None:
    """Show the number of jobs of each queue by state, the age of the oldest available job, and the nodes that serve it.

    Finished jobs are not counted. Empty queues are shown if a node serves them or if they are paused.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_, json_output=json_output)
    elif json_output:
        raise click.UsageError(f"put --json after the subcommand: qworker queues {context.invoked_subcommand} --json")


@click.command
@click.option("--json", "json_output", is_flag=True)
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
        (queue.name, *(queue.jobs.get(state, 0) for state in states),
         None if queue.oldest_age is None else format_duration(queue.oldest_age), queue.nodes or "no live node",
         *[str(queue.paused or "")] * paused)
        for queue in found
    ], note=paused, empty="no queue has jobs, and no node serves one")  # fmt: skip


@queues.command(short_help="Stop all nodes from claiming jobs of a queue.")
@click.argument("names", metavar="NAME...", nargs=-1)
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
            hint = _suggestion(name, known)
            safe_echo(f"warning: queue {name!r} has no jobs, and no live node serves it{hint}", err=True)


@queues.command(short_help="Allow nodes to claim jobs of a paused queue again.")
@click.argument("names", metavar="NAME...", nargs=-1)
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
            f"queue {name!r} is not paused, has no jobs, and no live node serves it{_suggestion(name, paused)}",
            err=True,
        )
    if unknown:
        click.get_current_context().exit(exits.FAILURE)


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


def _suggestion(name: str, others: list[str]) -> str:
    """Return the end of a message that suggests a similar name; an empty string if there is none."""
    near = get_close_matches(name, others, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _record(queue: QueueStatus) -> dict[str, object]:
    rest = {name: value for name, value in asdict(queue).items() if name not in ("name", "jobs")}
    return {state.value: queue.jobs.get(state, 0) for state in STATES} | rest
