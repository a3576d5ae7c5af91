"""Check whether a node can start here, and show its settings."""

from typing import Any

import click

from qworkerd.cli.options import given, options
from qworkerd.cli.tables import as_json, safe_echo, table, text
from qworkerd.config.check import Report, examine
from qworkerd.config.fields import NONE


@click.command(short_help="Check whether a node can start here, and show its settings.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@options()
@click.pass_context
def check(context: click.Context, /, *, json_output: bool, **_: Any) -> None:
    """Check settings, application, database and schema.

    Exits with status 78 if a node cannot start, and with status 2 if an option of the command line is invalid.
    Accepts the same options as a node: insert `check` after `qworker` in the command that starts yours.
    """
    report = examine(given(context))
    if json_output:
        as_json(report.as_dict())
    else:
        _show(report)
    context.exit(report.exit_code)


def _show(report: Report) -> None:
    if report.settings:
        rows = [(name, _value(entry["value"]), entry["origin"]) for name, entry in report.settings.items()]
        table(("SETTING", "VALUE", "FROM"), rows)
    if report.tasks:
        click.echo()
        head = ("TASK", "QUEUE", "PRIORITY", "TIMEOUT", "ATTEMPTS", "ON FAILURE")
        table(head, [
            (name, t["queue"], t["priority"], _value(t["timeout"]), t["attempts"], "hook" if t["on_failure"] else None)
            for name, t in report.tasks.items()
        ])  # fmt: skip
    if report.schedules:
        click.echo()
        table(
            ("SCHEDULE", "TASK", "EXPRESSION", "TIMEZONE"),
            [(n, s["task"], s["expression"], s["timezone"]) for n, s in report.schedules.items()],
        )
    if report.database:
        d = report.database
        safe_echo()
        safe_echo(
            f"database {d['name']!r} on {d['host']}:{d['port']} as {d['user']!r}, PostgreSQL {d['version']}, "
            f"schema {d['schema']!r}"
        )
    if report.stop_timeout is not None:
        seconds = report.stop_timeout
        click.echo(
            f"\na shutdown takes up to {seconds} s; set the timeout of the service manager accordingly:\n"
            f"  systemd      TimeoutStopSec={seconds}\n"
            f"  supervisord  stopwaitsecs={seconds}\n"
            f"  Kubernetes   terminationGracePeriodSeconds: {seconds}\n"
            f"  Docker       docker stop -t {seconds}"
        )
    click.echo()
    for warning in report.warnings:
        safe_echo(warning, prefix=f"{click.style('warning', fg='yellow')}  ")
    for problem in report.problems:
        safe_echo(problem, prefix=f"{click.style('problem', fg='red')}  ")
    if report.ok:
        click.echo(f"{click.style('ok', fg='green')}  a node can start")


def _value(value: object) -> str:
    return NONE if value is None else text(value).lower() if isinstance(value, bool) else text(value)
