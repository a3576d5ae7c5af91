"""Watch the other nodes' beats, and free the jobs of those that are dead."""

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from qworker.nodes import NODE_LOST, Nodes
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]


class Rescue:
    """Declares a node dead once this process itself has watched its beat stand still for that node's whole lease.

    No wall clock takes part: a watch is measured here, and begins again when this process could not look.
    """

    def __init__(self, node: NodeContext, nodes: Nodes, slot: Slot, reporter: Reporter) -> None:
        self._node = node
        self._slot = slot
        self._reporter = reporter
        self._nodes = nodes
        self._watch: dict[int, tuple[int, float]] = {}
        self._log = log.get()

    def forget(self) -> None:
        """Begin all watches anew: the connection was lost meanwhile."""
        self._watch.clear()

    def watch(self, database: Database, beats: Mapping[int, tuple[int, float]]) -> int:
        """Take in the beats and leases of the other nodes; return how many jobs were freed."""
        now, dead = boottime(), []
        self._watch = {
            other: seen if (seen := self._watch.get(other)) and seen[0] == beat else (beat, now)
            for other, (beat, _) in beats.items()
        }
        for other, (beat, since) in list(self._watch.items()):
            if now - since >= beats[other][1] and self._nodes.delete_dead_node(database, other, beat):
                self._log.error("node.dead", node=other, silent_for=round(now - since, 1))
                del self._watch[other]
                dead.append(other)
        return self.free_all(database, dead)

    def free(self, database: Database, dead: int) -> int:
        """Free the jobs of a node that is gone; return how many."""
        total = 0
        try:
            while freed := self._nodes.rescue(database, dead, self._node.settings.max_node_losses, self._node.hooks):
                total += len(freed)
                self._reporter.submit_losses(freed, NODE_LOST)
        finally:
            self._node.watermarks.report_release(self._slot)
        if total:
            self._log.warning("jobs.rescued", node=dead, jobs=total)
        return total

    def free_all(self, database: Database, dead: Iterable[int]) -> int:
        """Free the jobs of several, each for itself; return how many. What fails is found again as a stray."""
        freed = 0
        for node in dead:
            try:
                freed += self.free(database, node)
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.error("rescue.failed", node=node, error=str(error).strip())
        return freed
