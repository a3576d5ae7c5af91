"""Show the nodes and their workers."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import click

from qworker.durations import format_duration
from qworker.status import NodeStatus, run_times
from qworkerd.cli import running
from qworkerd.cli.options import app_optional
from qworkerd.cli.tables import as_json, table
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

    A running job is shown with the time its handler was called and the time its timeout interrupts it. RSS MIB is the
    memory of a worker, measured every five seconds. The last worker of a node that died unexpectedly is shown with the
    cause.
    """
    nodes = target.admin.nodes()
    if json_output:
        as_json([_record(node) for node in nodes])
        return
    died = any(node.last_death for node in nodes)
    head = ("NODE", "NAME", "VERSION", "QUEUES", "WORKERS", "UPTIME", "HEARTBEAT", *["LAST DEATH"] * died)
    table(head, [
        (n.id, n.name, n.version, n.queues, n.worker_count, _uptime(n), _heartbeat(n), *[_death(n)] * died)
        for n in nodes
    ], note=died, empty="no node is registered")  # fmt: skip
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
