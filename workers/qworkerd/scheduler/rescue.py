"""Watch the other nodes' heartbeats, and free the jobs of nodes that are dead."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psycopg

from qworker.recovery import Recovery
from qworker.registry import NodeLease
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process.reconnect import is_transient
from qworkerd.scheduler.sparing import Sparing
from qworkerd.shared.cause import Cause
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]


#: The error of a lost job; the statement adds the time and the attempt.
NODE_LOST = {"type": "NodeLost", "cause": Cause.NODE_LOST, "message": "the node that ran this job was lost"}


class Watched(NamedTuple):
    """The heartbeat of a node, and since when this process has seen it unchanged (`boottime`)."""

    heartbeat: int
    since: float


class Rescue:
    """Declares a node dead once this process has seen its heartbeat unchanged for that node's whole lease.

    No wall clock is involved. The time is measured by this process, and starts again if it could not poll.
    """

    def __init__(self, node: NodeContext, recovery: Recovery, slot: Slot, reporter: Reporter) -> None:
        self._node = node
        self._slot = slot
        self._reporter = reporter
        self._recovery = recovery
        self._sparing = Sparing("rescue")
        self._watch: dict[int, Watched] = {}
        self._log = log.get()

    def forget(self) -> None:
        """Start all measurements again: the connection was lost meanwhile."""
        self._watch.clear()

    def check_heartbeats(self, database: Database, nodes: Mapping[int, NodeLease]) -> int:
        """Process what is known of the other nodes; return the number of jobs freed."""
        now, dead = boottime(), []
        self._watch = {
            other: seen
            if (seen := self._watch.get(other)) and seen.heartbeat == node.heartbeat
            else Watched(node.heartbeat, now)
            for other, node in nodes.items()
        }
        for other, (heartbeat, since) in list(self._watch.items()):
            if now - since < nodes[other].lease_seconds:
                continue
            try:
                if not self._recovery.delete_dead_node(database, other, heartbeat):
                    continue
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.error("rescue.failed", node=other, error=str(error).strip())
                if not is_transient(error):  # otherwise the next poll tries it again
                    self._watch[other] = Watched(heartbeat, now)
                continue
            self._log.error("node.dead", node=other, silent_for=round(now - since, 1))
            del self._watch[other]
            dead.append(other)
        return self.free_nodes(database, dead)

    def free_node(self, database: Database, dead: int) -> int:
        """Free the jobs of a node that is gone; return their number."""
        total = 0
        try:
            while freed := self._sparing.run(
                database,
                lambda limit, excluded: self._recovery.rescue(
                    database,
                    dead,
                    self._node.settings.max_node_losses,
                    json.dumps(NODE_LOST),
                    self._node.hooks,
                    limit=limit,
                    excluded=excluded,
                ),
                lambda excluded: self._recovery.first_lost(database, dead, excluded),
            ):
                total += len(freed)
                self._reporter.submit_losses(freed, NODE_LOST)
        finally:
            self._node.watermarks.report_release(self._slot)
        if total:
            self._log.warning("jobs.rescued", node=dead, jobs=total)
        return total

    def free_nodes(self, database: Database, dead: Iterable[int]) -> int:
        """Free the jobs of several nodes; return their number. A thorough poll finds the node again if one fails."""
        freed = 0
        for node in dead:
            try:
                freed += self.free_node(database, node)
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.error("rescue.failed", node=node, error=str(error).strip())
        return freed
