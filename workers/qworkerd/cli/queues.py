"""Show how many jobs each queue holds; pause and resume queues."""

from dataclasses import asdict
from difflib import get_close_matches

import click

from qworker.job import JobState
from qworker.queues import QueueStatus
from qworkerd.cli.options import looking, options
from qworkerd.cli.tables import as_json, say, table
from qworkerd.config.durations import spell
from qworkerd.config.target import Target
from qworkerd.process import exits

SHOWN = (JobState.AVAILABLE, JobState.RUNNING, JobState.SCHEDULED, JobState.BLOCKED, JobState.FAILED)

json_option = click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")


@click.group(invoke_without_command=True, short_help="Count the jobs of each queue; pause and resume queues.")
@json_option
@options("app", "schema")
@click.pass_context
def queues(context: click.Context, /, *, for_programs: bool, **_: str | None) -> None:
    """Show the jobs of each queue by state, how long the oldest available one has existed, and which nodes serve it.

    Finished jobs are not counted. Queues that are served or paused are shown even if they hold no jobs.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_, for_programs=for_programs)
    elif for_programs:
        raise click.UsageError(f"write --json after the subcommand: qworker queues {context.invoked_subcommand} --json")


@click.command
@click.option("--json", "for_programs", is_flag=True)
@looking
def list_(to: Target, *, for_programs: bool) -> None:
    """Print all queues."""
    found = to.admin.queues()
    if for_programs:
        as_json({queue.name: _record(queue) for queue in found})
        return
    # No job is blocked as a rule: the column would take the room of others. The same is true of a pause.
    blocked = any(JobState.BLOCKED in queue.jobs for queue in found)
    paused = any(queue.paused for queue in found)
    states = [state for state in SHOWN if state is not JobState.BLOCKED or blocked]
    head = ("QUEUE", *(state.value.upper() for state in states), "OLDEST", "SERVED BY", *["PAUSED"] * paused)
    table(head, [
        (queue.name, *(queue.jobs.get(state, 0) for state in states),
         None if queue.oldest_age is None else spell(queue.oldest_age), queue.nodes or "no living node",
         *[str(queue.paused or "")] * paused)
        for queue in found
    ], note=paused, empty="no queue holds a job, and none is served")  # fmt: skip


@queues.command(short_help="Let no node claim jobs of a queue.")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "all_queues", is_flag=True, help="All queues that hold jobs or that a living node serves.")
@click.option("--reason", metavar="TEXT", help="Why; shown wherever the pause is shown.")
@json_option
@looking
def pause(to: Target, *, names: tuple[str, ...], all_queues: bool, reason: str | None, for_programs: bool) -> None:
    """Pause queues on all nodes: running jobs finish, and no other job of these queues starts until they are resumed.

    Jobs can still be enqueued, retried and cancelled, and schedules still tick. The pause takes effect within about a
    second, and lasts until the queue is resumed, even if nodes are restarted. A queue that was paused already keeps the
    time and the reason of its pause.
    """
    known = [queue.name for queue in to.admin.queues()]
    wanted = _wanted(names, known, all_queues=all_queues)
    try:
        changed = to.admin.pause(*wanted, reason=reason)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _print(to, wanted, changed, ("is paused", "was paused already"), for_programs=for_programs)
    if all_queues and not wanted:
        say("no queue holds a job, and none is served", err=True)
    for name in wanted:
        if name not in known:
            say(f"warning: queue {name!r} holds no jobs, and no living node serves it{_meant(name, known)}", err=True)


@queues.command(short_help="Let nodes claim jobs of a paused queue again.")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "all_queues", is_flag=True, help="All paused queues.")
@json_option
@looking
def resume(to: Target, *, names: tuple[str, ...], all_queues: bool, for_programs: bool) -> None:
    """Resume paused queues: their jobs start in the usual order.

    The exit status is 1 if a queue is neither paused nor served, and holds no jobs: its name is probably misspelt.
    """
    before = to.admin.queues()
    paused = [queue.name for queue in before if queue.paused]
    wanted = _wanted(names, paused, all_queues=all_queues)
    changed = to.admin.resume(*wanted)
    unknown = [name for name in wanted if name not in changed and name not in {queue.name for queue in before}]
    found = [name for name in wanted if name not in unknown]
    _print(to, found, changed, ("is resumed", "was not paused"), for_programs=for_programs)
    if all_queues and not wanted:
        say("no queue is paused", err=True)
    for name in unknown:
        say(
            f"queue {name!r} is not paused, holds no jobs, and no living node serves it{_meant(name, paused)}", err=True
        )
    if unknown:
        click.get_current_context().exit(exits.FAILURE)


def _wanted(names: tuple[str, ...], every: list[str], *, all_queues: bool) -> list[str]:
    """Return the queues that a command is about."""
    if all_queues == bool(names):
        raise click.UsageError("give the names of queues, or --all")
    return every if all_queues else list(dict.fromkeys(names))


def _print(to: Target, names: list[str], changed: list[str], words: tuple[str, str], *, for_programs: bool) -> None:
    """Print what was done with each queue: the first word if it was changed, and the second if not."""
    pauses = {pause.queue: pause for pause in to.admin.paused(*names)} if names else {}
    if for_programs:
        as_json({name: {"changed": name in changed, "paused": pauses.get(name)} for name in names})
        return
    for name in names:
        details = f" {pauses[name]}" if name in pauses else ""
        say(f"queue {name!r} {words[name not in changed]}{details}")


def _meant(name: str, others: list[str]) -> str:
    """Return a proposal for a name that is probably misspelt."""
    near = get_close_matches(name, others, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _record(queue: QueueStatus) -> dict[str, object]:
    rest = {name: value for name, value in asdict(queue).items() if name not in ("name", "jobs")}
    return {state.value: queue.jobs.get(state, 0) for state in SHOWN} | rest
