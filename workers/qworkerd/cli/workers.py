"""Show the nodes and their workers."""

from collections.abc import Mapping
from typing import Any

import click

from qworker.status import NodeStatus
from qworkerd.cli import running
from qworkerd.cli.options import app_optional
from qworkerd.cli.tables import as_json, table
from qworkerd.config.durations import format_duration
from qworkerd.config.target import Target

#: The first columns. jsonb does not preserve the order of keys.
FIRST_COLUMNS = ("node", "worker", "pid", "phase")
#: Values that are shown in the JOB column instead of in separate columns.
IN_JOB_COLUMN = frozenset({"job", "task", "ran", "left"})
#: Columns that are shown only if a value is not zero.
ONLY_IF_NONZERO = frozenset({"stale_writes"})


@click.command(short_help="Show the nodes and their workers.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array.")
@app_optional
def workers(target: Target, *, json_output: bool) -> None:
    """Show the nodes that have not been declared dead, and the phase and job of each of their workers.

    A running job is shown with the time its handler was called and the time its timeout interrupts it.
    """
    nodes = target.admin.nodes()
    if json_output:
        as_json(nodes)
        return
    head = ("NODE", "NAME", "VERSION", "QUEUES", "WORKERS", "UPTIME", "HEARTBEAT")
    table(head, [
        (n.id, n.name, n.version, n.queues, n.worker_count, _uptime(n), _heartbeat(n)) for n in nodes
    ], empty="no node is registered")  # fmt: skip
    entries = [({"node": node.id, **worker}, _job(node, worker)) for node in nodes for worker in running.workers(node)]
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


def _job(node: NodeStatus, worker: Mapping[str, Any]) -> str:
    if worker.get("job") is None:
        return ""
    parts = [f"job {worker['job']} {worker.get('task') or ''}".strip(), running.span(*running.times(node, worker))]
    return ", ".join(part for part in parts if part)


def _uptime(node: NodeStatus) -> str:
    return format_duration(max(0.0, (node.heartbeat_at - node.started_at).total_seconds()))


def _heartbeat(node: NodeStatus) -> str:
    age = f"{format_duration(max(0.0, node.heartbeat_age))} ago"
    return f"{age}, overdue" if node.heartbeat_age > node.lease_seconds else age
