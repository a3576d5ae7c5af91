"""Leaves the state of the cluster in shared memory, for the exporter."""

import json
from collections import Counter
from collections.abc import Callable, Iterable

from qworker.cluster import Cluster
from qworker.db.statements import Database
from qworker.depth import INTERVAL
from qworker.findings import Finding
from qworker.schedule import Schedule
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime

#: Maximum number of queues, and of schedules: the ones with the most jobs, and the latest ones.
MAX_QUEUES, MAX_SCHEDULES = 500, 500


class Gauges:
    """The maintenance task that reads the state of the cluster."""

    def __init__(self, node: NodeContext, findings: Callable[[], Iterable[Finding]]) -> None:
        """Findings returns what the checks of this node have found."""
        self._board = node.board
        self._findings = findings
        self._cluster = Cluster(node.settings.schema)
        #: When the next tick of a schedule is due, by its name, expression, time zone and last tick.
        self._due: dict[tuple[str, str, str, float], float | None] = {}

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task."""
        maintenance.add("cluster", INTERVAL, self.read, deferred=True)

    def read(self, database: Database) -> None:
        """Replace what the exporter reports."""
        state = self._cluster.gauges(database)
        queues = state["queues"]
        if len(queues) > MAX_QUEUES:
            largest = sorted(queues, key=lambda name: queues[name]["available"], reverse=True)[:MAX_QUEUES]
            state["queues"] = {name: queues[name] for name in largest}
        for key in ("workers", "paused"):  # a queue that is served or paused may hold no job
            state[key] = _first(state[key])
        state["late"] = self._lateness(state.pop("schedules"), state["at"])
        found = Counter((finding.check, finding.severity.value) for finding in self._findings())
        state["findings"] = [[*names, number] for names, number in found.items()]
        state["read_at"] = boottime()
        self._board.write(json.dumps(state, ensure_ascii=False))

    def _lateness(self, schedules: list[tuple[str, str, str, float]], now: float) -> dict[str, float]:
        """Return how late the next tick of each schedule is (seconds)."""
        keys = [(name, expression, timezone, last) for name, expression, timezone, last in schedules]
        self._due = {key: self._due[key] if key in self._due else _due(*key) for key in keys}
        late = {key[0]: max(now - due, 0.0) for key, due in self._due.items() if due is not None}
        if len(late) > MAX_SCHEDULES:
            late = dict(sorted(late.items(), key=lambda item: item[1], reverse=True)[:MAX_SCHEDULES])
        return late


def _first(names: dict[str, int] | list[str]) -> dict[str, int] | list[str]:
    return dict(list(names.items())[:MAX_QUEUES]) if isinstance(names, dict) else names[:MAX_QUEUES]


def _due(name: str, expression: str, timezone: str, last_tick: float) -> float | None:
    """Return when a schedule is due; None if it never is, or if this host does not know its time zone."""
    try:
        return Schedule(name, "", expression, timezone).next(last_tick)
    except Exception:  # noqa: BLE001 - a row that was edited by hand must not hide the others
        return None
