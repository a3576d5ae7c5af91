"""Show the nodes and their workers."""

from collections.abc import Mapping
from typing import Any

import click

from qworker.admin import NodeStatus
from qworkerd.cli.options import looking
from qworkerd.cli.tables import as_json, table
from qworkerd.target import Target

#: The columns people look for first; jsonb keeps no order of its own.
FIRST = ("node", "worker", "pid", "phase", "job", "task")


@click.command(short_help="Show the nodes and what their workers do.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON array.")
@looking
def workers(to: Target, *, for_programs: bool) -> None:
    """Show the nodes that have not been declared dead, and what each of their workers does."""
    nodes = to.admin.nodes()
    if for_programs:
        as_json(nodes)
        return
    head = ("NODE", "NAME", "VERSION", "QUEUES", "PROCESSES", "STARTED", "LAST BEAT")
    table(head, [(n.id, n.name, n.version, n.queues, n.processes, n.started_at, _beat(n)) for n in nodes])
    entries = [{"node": node.id, **worker} for node in nodes for worker in _workers(node)]
    if entries:
        # A node of another version may tell other things: whatever it tells is shown.
        told = dict.fromkeys(name for entry in entries for name in entry)
        names = [name for name in FIRST if name in told] + [name for name in told if name not in FIRST]
        click.echo()
        table([name.upper().replace("_", " ") for name in names], [[e.get(name) for name in names] for e in entries])


def _workers(node: NodeStatus) -> list[Mapping[str, Any]]:
    found = node.state.get("workers")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _beat(node: NodeStatus) -> str:
    silent = f"{max(0.0, node.silent):.1f} s ago"
    return f"{silent}, overdue" if node.silent > node.lease else silent
