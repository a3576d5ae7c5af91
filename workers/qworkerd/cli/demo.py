"""Show what qworker does, with its own PostgreSQL and jobs."""

import sys
from pathlib import Path

import click

from qworkerd.cli.tables import as_json
from qworkerd.process import exits


@click.command(short_help="Show what qworker does, with its own PostgreSQL and jobs.")
@click.option("--processes", type=click.IntRange(1, 64), default=8, metavar="N", help="Number of workers. [default: 8]")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the node's log.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object, and everything else to standard error.")
@click.pass_context
def demo(context: click.Context, /, *, processes: int, log: Path | None, json_output: bool) -> None:
    """Index the Python standard library, a job for each file, while other jobs fail, hang, crash and run on a schedule.

    Starts a PostgreSQL server and a node, and stops both at the end. Requires an extra: pip install 'pgqworker[demo]'.
    Exits with status 1 if a check fails.
    """
    from qworkerd.demo.play import play
    from qworkerd.demo.screen import Screen

    screen = Screen(sys.stderr if json_output else sys.stdout)
    try:
        report = play(processes, screen, log)
    except KeyboardInterrupt:
        screen.clear()
        screen.echo("stopped before the end")
        context.exit(130)
    for line in report.lines():
        screen.echo(line)
    if json_output:
        as_json(report.as_dict())
    context.exit(exits.OK if report.passed else exits.FAILURE)
