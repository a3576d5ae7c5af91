"""Show what a running job does right now."""

import click

from qworker.stacks import TIMEOUT
from qworkerd.cli.completion import completing
from qworkerd.cli.jobs import IDS
from qworkerd.cli.options import app_optional
from qworkerd.cli.running import local_time
from qworkerd.cli.tables import as_json, safe_echo
from qworkerd.config.target import Target


@click.command(short_help="Show the stacks of the worker that runs a job.")
@click.argument("job_id", metavar="ID", type=IDS, shell_complete=completing("running job"))
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=TIMEOUT, metavar="SECONDS",
              help="How long to wait for the node. [default: 10]")  # fmt: skip
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@app_optional
def stack(target: Target, *, job_id: int, timeout: float, json_output: bool) -> None:
    """Show the stacks of the worker that runs a job, the innermost call first, without disturbing the job.

    The node that runs the job answers within about a second, also if the handler does not return from C code. Exits
    with status 1 and the reason if it does not.
    """
    found = target.admin.stack(job_id, timeout=timeout)
    if json_output:
        as_json(found)
        return
    node = found.node or "a node that has ended"
    safe_echo(
        f"job {job_id}, on {node}, worker {found.worker} (pid {found.pid}), running for {found.ran:.1f} s at "
        f"{local_time(found.read_at)}"
    )
    safe_echo(found.stacks)
