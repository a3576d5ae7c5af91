"""Show the nodes and their workers; pause and resume nodes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

import click

from qworker.durations import format_duration
from qworker.nodes import NodeNotFound, find
from qworker.status import NodeStatus, run_times
from qworkerd.cli import running
from qworkerd.cli.completion import completing
from qworkerd.cli.options import app_optional, options
from qworkerd.cli.subcommands import ListingGroup
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.config.target import Target

#: The first columns. jsonb does not preserve the order of keys.
FIRST_COLUMNS = ("node", "worker", "pid", "phase")
#: Values that are shown in the JOB column instead of in separate columns.
IN_JOB_COLUMN = frozenset({"job", "task", "ran", "left"})
#: Columns that are shown only if a value is not zero.
ONLY_IF_NONZERO = frozenset({"stale_writes"})


json_option = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


@click.group(cls=ListingGroup, short_help="Show the nodes and their workers; pause and resume nodes.")
@options("app", "schema")
def workers(**_: str | None) -> None:
    """Show the nodes that have not been declared dead, and the phase and job of each of their workers.

    A running job is shown with the time its handler was called and the time its timeout interrupts it. RSS MIB is the
    memory of a worker, measured every five seconds. The last worker of a node that died unexpectedly is shown with the
    cause.

    Without a subcommand, `workers` takes the options of `workers list`: `qworker workers --json`.
    """


@workers.command("list", short_help="List the nodes, as `workers` without a subcommand does.")
@json_option
@app_optional
def list_(target: Target, *, json_output: bool) -> None:
    """Print all nodes and their workers."""
    nodes = target.admin.nodes()
    if json_output:
        as_json([_record(node) for node in nodes])
        return
    died, paused = any(node.last_death for node in nodes), any(node.paused for node in nodes)
    head = (
        "NODE", "NAME", "VERSION", "QUEUES", "WORKERS", "UPTIME", "HEARTBEAT", *["PAUSED"] * paused,
        *["LAST DEATH"] * died,
    )  # fmt: skip
    table(head, [
        (n.id, n.name, n.version, n.queues, n.worker_count, _uptime(n), _heartbeat(n), *[str(n.paused or "")] * paused,
         *[_death(n)] * died)
        for n in nodes
    ], note=died or paused, empty="no node is registered")  # fmt: skip
    entries = [({"node": node.id, **worker}, _job(node, worker)) for node in nodes for worker in node.reported_workers]
    if not entries:
        return
    # A node of another version may report other values; all are shown.
    reported = dict.fromkeys(
        name for entry, _ in entries for name, value in entry.items() if value or name not in ONLY_IF_NONZERO
    )
    names = [name for name in FIRST_COLUMNS if name in reported]
    names += [name for name in reported if name not in (*FIRST_COLUMNS, *IN_JOB_COLUMN)]
    rows = [[entry.get(name) for name in names] for entry, _ in entries]
    busy = any(job for _, job in entries)
    if busy:
        rows = [[*row, job] for row, (_, job) in zip(rows, entries, strict=True)]
    click.echo()
    table([*(name.upper().replace("_", " ") for name in names), *["JOB"] * busy], rows, note=busy)


@workers.command(short_help="Stop nodes from claiming jobs.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing("node"))
@click.option("--reason", metavar="TEXT", help="The reason, which is shown with the pause.")
@json_option
@app_optional
def pause(target: Target, *, nodes: tuple[str, ...], reason: str | None, json_output: bool) -> None:
    """Pause nodes, by name or id: running jobs finish, and their workers claim no other job until they are resumed.

    Jobs that were claimed and not started are released for other nodes. Heartbeats, schedules and recovery go on. The
    pause takes effect within about a second, and lasts until the node is resumed or ends: a node that is started again
    claims jobs. If a node was already paused, the time and the reason of its pause do not change.
    """
    try:
        changed = target.admin.pause_nodes(*nodes, reason=reason)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    known = target.admin.nodes()
    _print(nodes, known, changed, ("is paused", "was already paused"), json_output=json_output)
    served = {queue for node in known if node.alive and not node.paused for queue in node.queues}
    left = {queue for node in known if node.id in changed for queue in node.queues} - served
    if left:
        names = ", ".join(map(repr, sorted(left)))
        safe_echo(f"warning: no other node claims jobs of queue{'s' * (len(left) > 1)} {names}", err=True)


@workers.command(short_help="Allow paused nodes to claim jobs again.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing("node"))
@json_option
@app_optional
def resume(target: Target, *, nodes: tuple[str, ...], json_output: bool) -> None:
    """Resume paused nodes, by name or id: their workers claim jobs again."""
    changed = target.admin.resume_nodes(*nodes)
    _print(nodes, target.admin.nodes(), changed, ("is resumed", "was not paused"), json_output=json_output)


def _print(
    wanted: Sequence[str], known: Sequence[NodeStatus], changed: Sequence[int], words: tuple[str, str], *,
    json_output: bool,
) -> None:  # fmt: skip
    """Print for each node the first of the words if it was changed, and the second if not."""
    found = {}
    for name in wanted:
        with suppress(NodeNotFound):  # it has ended since
            found[name] = find(name, known, live=False)
    if json_output:
        as_json({
            name: {"node": node.id, "changed": node.id in changed, "paused": node.paused, "busy": node.busy}
            for name, node in found.items()
        })  # fmt: skip
        return
    for node in {node.id: node for node in found.values()}.values():
        details = f" {node.paused}" if node.paused else ""
        running = f"; {node.busy} of {node.worker_count} workers still run a job" if node.paused and node.busy else ""
        safe_echo(f"node {node.name!r} (id {node.id}) {words[node.id not in changed]}{details}{running}")


def _job(node: NodeStatus, worker: Mapping[str, Any]) -> str:
    if worker.get("job") is None:
        return ""
    parts = [
        f"job {worker['job']} {worker.get('task') or ''}".strip(),
        running.span(*run_times(node.heartbeat_at, worker)),
    ]
    return ", ".join(part for part in parts if part)


def _record(node: NodeStatus) -> dict[str, Any]:
    return {field.name: getattr(node, field.name) for field in fields(node)} | {"last_death": node.last_death}


def _death(node: NodeStatus) -> str:
    death = node.last_death
    if death is None:
        return ""
    count = "" if death.count == 1 else f"; {death.count:,} deaths"
    return f"worker {death.worker} (pid {death.pid}) died at {running.local_time(death.at)}: {death.cause}{count}"


def _uptime(node: NodeStatus) -> str:
    return format_duration(max(0.0, (node.heartbeat_at - node.started_at).total_seconds()))


def _heartbeat(node: NodeStatus) -> str:
    age = f"{format_duration(max(0.0, node.heartbeat_age))} ago"
    return f"{age}, overdue" if node.heartbeat_age > node.lease_seconds else age
