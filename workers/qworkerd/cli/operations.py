"""Show and stop operations on many jobs, and wait for one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import sleep

import click
import psycopg

from qworker import program
from qworker.operations import Action, Operation, Operations
from qworkerd.cli.completion import completing
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.running import local_time
from qworkerd.cli.tables import as_json, safe_echo, table, text
from qworkerd.config.target import Target
from qworkerd.log.visible import visible
from qworkerd.process import exits

#: Seconds between two looks at an operation that others carry out.
POLL = 0.2
#: What has happened to the jobs.
DONE = {
    Action.RETRY: "retried", Action.CANCEL: "cancelled", Action.DISCARD: "discarded", Action.AGAIN: "copied",
    Action.RUN_NOW: "made available", Action.MOVE: "moved",
}  # fmt: skip

json_option = click.option("--json", "json_output", is_flag=True, help="Print JSON.")
id_argument = click.argument(
    "operation_id", metavar="ID", type=click.IntRange(1, 2**63 - 1), shell_complete=completing("operation")
)


@click.group(short_help="Show and stop operations on many jobs.")
@options("app", "schema")
def operations(**_: str | None) -> None:
    """Show and stop operations: actions on all jobs that match a filter, such as `qworker jobs retry queue:mail`."""


@operations.command("list")
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, metavar="N", help="Maximum number. [default: 50]"
)  # fmt: skip
@json_option
@app_optional
def list_(target: Target, *, running: bool, limit: int, json_output: bool) -> None:
    """List operations, the newest first."""
    with target.connection("client") as conn:
        found = Operations(target.schema).find(conn, running=running, limit=limit)
    if json_output:
        as_json(found)
        return
    head = ("ID", "ACTION", "STATE", "DONE", "OF", "SKIPPED", "FAILED", "CREATED", "BY", "FILTER")
    table(
        head,
        [(o.id, o.action, o.state, o.done, o.expected, o.skipped, o.failed, local_time(o.created_at), o.actor, o.filter)
         for o in found],
        note=True,
        empty="no operations",
    )  # fmt: skip


@operations.command()
@id_argument
@click.option("--wait", is_flag=True, help="Wait until it ends; this process takes part in it.")
@json_option
@app_optional
def show(target: Target, *, operation_id: int, wait: bool, json_output: bool) -> None:
    """Show an operation, and how far it is."""
    with target.connection("client") as conn:
        found = Operations(target.schema).get(conn, operation_id)
        if wait:
            found = watch(conn, target.schema, found)
    if json_output:
        as_json(found)
        return
    for name in Operation.__dataclass_fields__:
        value = getattr(found, name)
        if value not in (None, {}):
            safe_echo(f"{name:<12} {text(value)}")


@operations.command()
@id_argument
@json_option
@app_optional
def stop(target: Target, *, operation_id: int, json_output: bool) -> None:
    """Stop an operation after its current slice of jobs. What it has done is not undone."""
    known = Operations(target.schema)
    with target.connection("client") as conn:
        stopped = known.stop(conn, operation_id)
        found = stopped or known.get(conn, operation_id)
    if json_output:
        as_json(found)
    elif stopped is not None:
        safe_echo(f"operation {operation_id} is stopped: {outcome(stopped)}")
    else:
        safe_echo(f"operation {operation_id} has ended before: it is {found.state}", err=True)
    if stopped is None:
        click.get_current_context().exit(exits.FAILURE)


def outcome(operation: Operation) -> str:
    """Return what has become of the jobs."""
    parts = [f"{operation.done:,} job{'s' * (operation.done != 1)} {DONE[operation.action]}"]
    if operation.skipped:
        parts.append(f"{operation.skipped:,} skipped, because they were in another state or locked")
    if operation.failed:
        parts.append(f"{operation.failed:,} refused by the database")
    return ", ".join(parts) + (f" ({operation.error})" if operation.error else "")


def watch(conn: psycopg.Connection[tuple[object, ...]], schema: str, operation: Operation) -> Operation:
    """Take part in an operation until it ends, and show its progress. Without this process, the nodes carry it out."""
    known, takes_part = Operations(schema), True
    with _interruptible(operation), _progress() as show_progress:
        while operation.running:
            found = None
            if takes_part:
                try:
                    found = known.advance(conn, operation.id)
                except psycopg.errors.InsufficientPrivilege:  # of a role that may only create it
                    takes_part = False
                except psycopg.OperationalError:
                    if conn.closed:
                        raise
            if found is None:
                sleep(POLL)
            operation = found or known.get(conn, operation.id)
            show_progress(operation)
    return operation


@contextmanager
def _interruptible(operation: Operation) -> Iterator[None]:
    """Say how to stop the operation when the client ends before it."""
    try:
        yield
    except (KeyboardInterrupt, psycopg.OperationalError) as error:
        show, end = (program.command(f"operations {name} {operation.id}") for name in ("show", "stop"))
        safe_echo(
            f"\noperation {operation.id} continues on the nodes: `{show}` shows how far it is, `{end}` stops it",
            err=True,
        )
        if isinstance(error, KeyboardInterrupt):
            raise click.Abort from None
        raise


@contextmanager
def _progress() -> Iterator[Callable[[Operation], None]]:
    """Show a line that is overwritten, if standard error is a terminal."""
    terminal, width = sys.stderr.isatty(), 0

    def shown(operation: Operation) -> None:
        nonlocal width
        if not terminal:
            return
        of = f" of {operation.expected:,} ({operation.share:.0%})" if operation.expected else ""
        speed = operation.speed(datetime.now(UTC))
        line = visible(f"operation {operation.id}: {operation.handled:,}{of}, {speed:,.0f}/s")
        click.echo(f"\r{line.ljust(width)}", err=True, nl=False)
        width = len(line)

    try:
        yield shown
    finally:
        if width:
            click.echo(f"\r{' ' * width}\r", err=True, nl=False)
