"""Enqueue one job by hand."""

import json
import sys
from typing import Any

import click

from qworkerd.cli.options import Duration, targeted
from qworkerd.cli.tables import as_json, record, say
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask
from qworkerd.log.visible import visible


@click.command(short_help="Enqueue one job.")
@click.argument("task")
@click.argument("arguments", metavar="[ARGS-JSON]", default="{}")
@click.option("--queue", metavar="NAME", help="Instead of the task's own queue.")
@click.option("--priority", type=click.IntRange(0, 9), metavar="N", help="0 (first) to 9, instead of the task's own.")
@click.option("--delay", type=Duration(), metavar="DURATION", help="Start it this much later: 90, 5m, 1h30m.")
@click.option("--unique", metavar="KEY", help="Only if no unfinished job of the task has this key.")
@click.option("--tag", "tags", multiple=True, metavar="WORD", help="A word to find it by; may be repeated.")
@click.option("--json", "for_programs", is_flag=True, help="Print the job as a JSON object.")
@targeted
def enqueue(to: Target, *, task: str, arguments: str, for_programs: bool, **said: Any) -> None:
    """Enqueue a job of TASK.

    ARGS-JSON is an object (arguments by name) or an array (by position); "-" reads it from standard input. The
    application checks them against the task's signature.
    """
    known = to.application().get_task(task)
    given = _read(arguments)
    named: dict[str, Any] = {name: value for name, value in said.items() if value not in (None, ())}
    try:
        prepared = known.options(**named)
        job = prepared.enqueue(*given) if isinstance(given, list) else prepared.enqueue(**given)
    except (TypeError, ValueError) as error:
        raise click.UsageError(visible(mask(str(error)))) from None
    if for_programs:
        as_json(record(job) | {"duplicate": job.duplicate})
    elif job.duplicate:
        say(f"job {job.id} is {job.state} already")
    else:
        say(f"job {job.id} is {job.state} in queue {job.queue!r}")


def _read(arguments: str) -> dict[str, Any] | list[Any]:
    try:
        text = sys.stdin.read() if arguments == "-" else arguments
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="ARGS-JSON") from None
    if not isinstance(given, (dict, list)):
        raise click.BadParameter(f"{visible(text[:100])} is neither an object nor an array", param_hint="ARGS-JSON")
    return given
