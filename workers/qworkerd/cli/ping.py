"""Checks whether a node of this host lives; for probes."""

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import click

from qworker.db.connection import connect, resolve_dsn
from qworker.db.pool import Pool
from qworker.durations import format_duration
from qworker.heartbeats import Heartbeats, NodeHeartbeat
from qworkerd.cli.options import Duration, given, options
from qworkerd.cli.tables import as_json, safe_echo
from qworkerd.config.settings import Settings
from qworkerd.config.target import load
from qworkerd.process import exits

#: The applications of frameworks, which have been imported before this command and know their database.
INTEGRATIONS = "qworker.contrib."


def _complete_node(context: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from qworkerd.cli.completion import completing  # a probe, which runs every few seconds, does not load it

    return completing("node")(context, param, incomplete)


@click.command(short_help="Check whether the node of this host lives.")
@click.option(
    "--node", metavar="NAME", shell_complete=_complete_node,
    help="A node by its name HOST:PID, or the nodes of another host.",
)  # fmt: skip
@click.option(
    "--timeout", type=Duration(), default=5.0, metavar="DURATION", help="Maximum duration of the command. [default: 5]"
)
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array.")
@options("app", "schema")
@click.pass_context
def ping(context: click.Context, /, *, node: str | None, timeout: float, json_output: bool, **_: str | None) -> None:
    """Exit with status 0 if a node of this host has renewed its lease in time.

    Exits with status 1 if no node of this host is registered, or if its lease has expired, and with status 75 if the
    database did not answer in time. The application is imported only if no connection string is set.
    """
    name = node or socket.gethostname()
    dsn, schema = _database(context)
    found = _within(timeout, lambda: _find(dsn, schema, name, timeout))
    alive = [heartbeat for heartbeat in found if heartbeat.alive]
    if json_output:
        as_json([{"node": h.name, "alive": h.alive, "silence": h.silence, "lease": h.lease} for h in found])
    elif alive:
        silence = format_duration(max(0.0, alive[0].silence))
        safe_echo(f"node {alive[0].name} is alive: its last heartbeat was {silence} ago")
    elif found:
        silence = format_duration(found[0].silence)
        safe_echo(
            f"node {found[0].name} is not alive: its last heartbeat was {silence} ago, and its lease is "
            f"{format_duration(found[0].lease)}",
            err=True,
        )
    else:
        safe_echo(f"no node {name} is registered", err=True)
    context.exit(exits.OK if alive else exits.FAILURE)


def _database(context: click.Context) -> tuple[str, str]:
    """Return the connection string and the schema; only an integration's application is always asked for them."""
    settings, origins = Settings.load(given(context))
    dsn = resolve_dsn(settings.dsn)
    if settings.app is not None and (not dsn or settings.app.startswith(INTEGRATIONS)):
        target = load(settings, origins)
        return target.dsn, target.schema
    return dsn, settings.schema


def _find(dsn: str, schema: str, name: str, timeout: float) -> list[NodeHeartbeat]:
    with (
        connect(dsn, "ping", statement_timeout=timeout, lock_timeout=timeout) as database,
        Pool(dsn, schema).connection(database),
    ):
        return Heartbeats(schema).find(database, name)


def _within(timeout: float, find: Callable[[], list[NodeHeartbeat]]) -> list[NodeHeartbeat]:
    """Return what a function returns, or end the process: name resolution cannot be interrupted in a thread."""
    results: list[list[NodeHeartbeat]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(find())
        except BaseException as error:  # noqa: BLE001 - raised below, in the main thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        safe_echo(f"qworker: no answer from the database within {format_duration(timeout)}", err=True)
        os._exit(exits.TEMPFAIL)
    if errors:
        raise errors[0]
    return results[0]
