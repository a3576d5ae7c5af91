"""Show what qworker does, with its own PostgreSQL and jobs."""

import sys
from pathlib import Path

import click

from qworkerd.cli.options import refuse
from qworkerd.cli.tables import as_json
from qworkerd.process import exits


@click.command(short_help="Show what qworker does, with its own PostgreSQL and jobs.")
@click.option("--processes", type=click.IntRange(1, 64), default=8, metavar="N", help="Number of workers. [default: 8]")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the node's log.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object, and everything else to standard error.")
@click.option("--web", is_flag=True, help="Keep a node running on mixed jobs, and serve the dashboard.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8090, show_default=True, metavar="N", help="With --web: its port."
)
@click.pass_context
def demo(
    context: click.Context, /, *, processes: int, log: Path | None, json_output: bool, web: bool, port: int
) -> None:  # fmt: skip
    """Index the Python standard library, a job for each file, while other jobs fail, hang, crash and run on a schedule.

    Starts a PostgreSQL server and a node, and stops both at the end. Requires an extra: pip install 'pgqworker[demo]',
    or with --web 'pgqworker[demo,web]'. Exits with status 1 if a check fails.

    With --web it checks nothing: mixed jobs run until Ctrl-C, and the dashboard shows them.
    """
    from qworkerd.demo.play import play
    from qworkerd.demo.screen import Screen

    if web:
        refuse("json_output", why="has no effect with --web, which checks nothing")
        from qworkerd.demo.show import show

        try:
            show(processes, Screen(sys.stdout), log, port)
        except KeyboardInterrupt:
            context.exit(130)
        return
    refuse("port", why="needs --web")
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
