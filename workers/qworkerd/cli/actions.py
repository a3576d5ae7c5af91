"""The commands that act on jobs: retry, cancel, discard, again, run-now, move."""

import re
from collections.abc import Callable
from typing import Any

import click

from qworker.errors import UnknownTask
from qworker.operations import MAX_RATE, MIN_RATE, Action
from qworker.options import check_move
from qworkerd.cli.acting import act
from qworkerd.cli.completion import completing
from qworkerd.cli.enqueue import read_arguments
from qworkerd.cli.options import app_optional
from qworkerd.cli.wanted import FilterCommand, filter_argument, ids_of
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask
from qworkerd.log.visible import visible


class Rate(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """Jobs per second, minute or hour."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the jobs per second."""
        found = re.fullmatch(r"(\d{1,7}(?:\.\d+)?)(?:/([smh]))?", str(value))
        rate = float(found[1]) / {"s": 1, "m": 60, "h": 3600}[found[2] or "s"] if found else 0.0
        if not MIN_RATE <= rate <= MAX_RATE:
            self.fail(f"{value!r} is not a rate: write 50/s, 100/m or 1000/h, and at least 1/h", param, ctx)
        return rate


def operation_options(command: Callable[..., None], when: str = "") -> Callable[..., None]:
    """Add the options of a command that may create an operation; when: the case in which they apply, for their help."""
    for option in reversed([
        click.option("-y", "--yes", is_flag=True, help=_capitalized(f"{when}do not ask.")),
        click.option("--rate", type=Rate(), metavar="N/s", help=_capitalized(f"{when}at most N jobs per second.")),
        click.option("--detach", is_flag=True, help=_capitalized(f"{when}do not wait, the nodes carry it out.")),
        click.option("--note", metavar="TEXT", help="Why; stored in the audit."),
        click.option("--json", "json_output", is_flag=True, help="Print JSON."),
    ]):  # fmt: skip
        command = option(command)
    return command


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def action_command(name: str, summary: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for the command of an action, with the options that all of them have."""

    def decorate(command: Callable[..., None]) -> click.Command:
        command = operation_options(app_optional(command), "With a filter: ")
        command = filter_argument("ID... | FILTER...")(command)
        made: click.Command = click.command(name, cls=FilterCommand, short_help=summary)(command)
        made.epilog = (
            "FILTER is like `queue:mail error:TimeoutError 'age:>1h' -tag:test`. The number of matching jobs and some "
            "of them are shown first. Newer jobs are not affected."
        )
        return made

    return decorate


def other_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option for other arguments."""
    text = "With one ID: other arguments, as for `qworker enqueue`."
    return click.option("--args", "arguments", metavar="JSON", help=text)(command)


@action_command("retry", "Make failed jobs available again.")
@other_arguments
def retry(target: Target, *, words: tuple[str, ...], arguments: str | None, **options: Any) -> None:
    """Make failed jobs available again, with all their attempts."""
    act(target, Action.RETRY, words, options, **edited(target, words, arguments))


@action_command("cancel", "Cancel jobs, including running ones.")
def cancel(target: Target, *, words: tuple[str, ...], **options: Any) -> None:
    """Cancel jobs. Waiting jobs are cancelled at once; running jobs are interrupted within about a second."""
    act(target, Action.CANCEL, words, options)


@action_command("discard", "Move failed jobs to the history.")
def discard(target: Target, *, words: tuple[str, ...], **options: Any) -> None:
    """Move failed jobs to the history, where they are kept for `history_days`."""
    act(target, Action.DISCARD, words, options)


@action_command("again", "Enqueue copies of jobs that have ended.")
@other_arguments
def again(target: Target, *, words: tuple[str, ...], arguments: str | None, **options: Any) -> None:
    """Enqueue copies of jobs that have ended or failed: same task, arguments, queue, priority and tags.

    A copy holds no unique key, and has the timeout and retries of its task.
    """
    act(target, Action.AGAIN, words, options, **edited(target, words, arguments))


@action_command("run-now", "Make scheduled jobs available at once.")
def run_now(target: Target, *, words: tuple[str, ...], **options: Any) -> None:
    """Make scheduled jobs available at once, instead of when they are due."""
    act(target, Action.RUN_NOW, words, options)


@action_command("move", "Move jobs to another queue or priority.")
@click.option("--queue", metavar="NAME", shell_complete=completing("queue"), help="The queue.")
@click.option("--priority", type=click.IntRange(0, 9), metavar="N", help="0 (first) to 9.")
def move(target: Target, *, words: tuple[str, ...], queue: str | None, priority: int | None, **options: Any) -> None:
    """Move jobs that wait or have failed to another queue or priority, behind the jobs that are there."""
    try:
        check_move(queue, priority)
    except (TypeError, ValueError) as error:
        raise click.UsageError(visible(str(error))) from None
    act(target, Action.MOVE, words, options, queue=queue, priority=priority)


def edited(target: Target, words: tuple[str, ...], arguments: str | None) -> dict[str, Any]:
    """Return other arguments for the job that is named, checked against its task if the application is known."""
    if arguments is None:
        return {}
    ids = ids_of(words)
    if ids is None or len(ids) != 1:
        raise click.UsageError("pass the id of one job with --args")
    given = read_arguments(arguments)
    try:
        return {"args": target.admin.check_arguments(target.admin.show(ids[0]).task, given)}
    except (TypeError, ValueError, UnknownTask) as error:
        raise click.UsageError(visible(mask(str(error)))) from None


COMMANDS = (retry, cancel, discard, again, run_now, move)
