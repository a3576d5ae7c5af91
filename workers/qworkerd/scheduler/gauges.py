"""Leaves the state of the cluster in shared memory, for the exporter."""

import json
from collections.abc import Callable, Iterable

from qworker.cluster import Cluster
from qworker.db.statements import Database
from qworker.depth import INTERVAL
from qworker.findings import Finding
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime


class Gauges:
    """The maintenance task that reads the state of the cluster."""

    def __init__(self, node: NodeContext, findings: Callable[[], Iterable[Finding]]) -> None:
        """Findings returns what the checks of this node have found."""
        self._board = node.board
        self._findings = findings
        self._cluster = Cluster(node.settings.schema)

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task."""
        maintenance.add("cluster", INTERVAL, self.read, deferred=True)

    def read(self, database: Database) -> None:
        """Replace what the exporter reports."""
        state = self._cluster.state(database, self._findings()) | {"read_at": boottime()}
        self._board.write(json.dumps(state, ensure_ascii=False))
