"""Pauses and resumes nodes: a paused node goes on with what runs, and claims no other job."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from shlex import quote

from psycopg.errors import ForeignKeyViolation

from qworker import program
from qworker.actor import current_actor
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.durations import format_duration
from qworker.errors import QworkerError
from qworker.nearest import not_found
from qworker.queues import pause_parameters
from qworker.status import NodeStatus, Pause, pause_of


class NodeNotFound(QworkerError, LookupError):
    """No live node has this id or name, or several nodes have the name."""


class Nodes(Statements):
    """The statements for paused nodes."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("nodes", schema)

    def pause(self, database: Database, ids: Iterable[int], reason: str | None) -> list[int]:
        """Pause nodes; return those that were not paused before. The others keep their time, author and reason.

        A node that ends meanwhile is not paused.
        """
        parameters = {"nodes": list(ids), **pause_parameters(reason, None)}
        with suppress(ForeignKeyViolation):
            return sorted(self._column(database, "pause", **parameters))
        return sorted(self._column(database, "pause", **parameters))  # without the node that has just gone

    def resume(self, database: Database, ids: Iterable[int]) -> list[int]:
        """Resume nodes; return those that were paused."""
        return sorted(self._column(database, "resume", nodes=list(ids), **current_actor().parameters))

    def is_paused(self, database: Database, node: int) -> bool | None:
        """Return whether a node is paused; None if it is not registered."""
        paused: bool | None = self._scalar(database, "is_paused", node=node)
        return paused

    def pause_of(self, database: Database, node: int) -> Pause | None:
        """Return the pause of a node; None if it is not paused."""
        return next(iter(self._records(database, "pause_of", pause_of, node=node)), None)


def find(wanted: int | str, nodes: Sequence[NodeStatus], *, live: bool = True) -> NodeStatus:
    """Return the node with this id, as a number or its digits, or with this name; raises NodeNotFound.

    live: refuse a node whose lease has ended.
    """
    found = [node for node in nodes if str(wanted) in (str(node.id), node.name)]
    alive = [node for node in found if node.alive]
    if len(alive) > 1 or (not alive and len(found) > 1):
        ids = ", ".join(str(node.id) for node in alive or found)
        raise NodeNotFound(f"{len(alive or found)} nodes have the name {wanted!r}: pass the id of one of them, {ids}")
    if not found:
        raise NodeNotFound(not_found("node", wanted, [node.name for node in nodes], listing="workers list"))
    (node,) = alive or found
    if live and not alive:
        raise NodeNotFound(
            f"node {wanted!r} is not alive: its last heartbeat was {format_duration(node.heartbeat_age)} ago, and its "
            f"lease is {format_duration(node.lease_seconds)}"
        )
    return node


def resume_command(node: int | str) -> str:
    """Return how to resume a node, for messages."""
    return f"resume it with `{program.command(f'workers resume {quote(str(node))}')}`"
