"""Enqueue one job."""

import json
import sys
from typing import Any

import click

from qworker.payload import POSITIONAL
from qworkerd.cli.completion import completing
from qworkerd.cli.options import Duration, targeted
from qworkerd.cli.tables import as_json, job_as_dict, safe_echo
from qworkerd.config.target import Target
from qworkerd.log.redaction import mask
from qworkerd.log.visible import visible


@click.command(short_help="Enqueue one job.")
@click.argument("task", shell_complete=completing("task"))
@click.argument("arguments", metavar="[ARGS-JSON]", default="{}")
@click.option(
    "--queue", metavar="NAME", shell_complete=completing("queue"), help="The queue, instead of the default of the task."
)
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="N", help="0 (first) to 9, instead of the default of the task."
)
@click.option("--delay", type=Duration(), metavar="DURATION", help="Start the job after this time: 90, 5m, 1h30m.")
@click.option("--unique", metavar="KEY", help="Enqueue only if no unfinished job of the task has this key.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag to find the job by; may be repeated.")
@click.option("--json", "json_output", is_flag=True, help="Print the job as a JSON object.")
@targeted
def enqueue(target: Target, *, task: str, arguments: str, json_output: bool, **options: Any) -> None:
    """Enqueue a job of TASK.

    ARGS-JSON is an object (arguments by name) or an array (by position); "-" reads it from standard input. The
    application checks them against the task's signature.
    """
    known = target.application().get_task(task)
    given = read_arguments(arguments)
    named: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        prepared = known.options(**named)
        if known.conversion is not None:
            given = known.load(json.dumps({POSITIONAL: given} if isinstance(given, list) else given))
        job = prepared.enqueue(*given) if isinstance(given, list) else prepared.enqueue(**given)
    except (TypeError, ValueError) as error:
        raise click.UsageError(visible(mask(str(error)))) from None
    if json_output:
        as_json(job_as_dict(job) | {"duplicate": job.duplicate})
    elif job.duplicate:
        safe_echo(f"no job was enqueued: job {job.id}, which is {job.state}, holds the unique key")
    else:
        safe_echo(f"job {job.id} is {job.state} in queue {job.queue!r}")


def read_arguments(arguments: str) -> dict[str, Any] | list[Any]:
    """Return arguments by name or by position from JSON; "-" reads it from standard input."""
    try:
        text = sys.stdin.read() if arguments == "-" else arguments
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not valid JSON: {error}", param_hint="ARGS-JSON") from None
    if not isinstance(given, (dict, list)):
        raise click.BadParameter(f"expected an object or an array, not {visible(text[:100])}", param_hint="ARGS-JSON")
    return given
