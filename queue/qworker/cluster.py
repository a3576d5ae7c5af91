"""Read the state of the cluster for metrics."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.findings import Finding
from qworker.schedule import Schedule

#: An older sample of the queues is not reported (seconds).
SAMPLE_AGE = 900.0
#: Maximum number of queues, and of schedules: the ones with the most jobs, and the latest ones.
MAX_QUEUES, MAX_SCHEDULES = 500, 500


class Cluster(Statements):
    """The statement about the cluster."""

    __slots__ = ("_due",)

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("cluster", schema)
        #: When the next tick of a schedule is due, by its name, expression, time zone and last tick.
        self._due: dict[tuple[str, str, str, float], float | None] = {}

    def gauges(self, database: Database) -> dict[str, Any]:
        """Return the state of the cluster.

        The keys are queues, workers, paused, nodes, enqueued, horizon (seconds), bytes, schedules (each with its name,
        expression, time zone and last tick) and at, the time of the database (since 1970).
        """
        found: dict[str, Any] = json.loads(self._scalar(database, "gauges", sample_age=SAMPLE_AGE))
        return found

    def state(self, database: Database, findings: Iterable[Finding]) -> dict[str, Any]:
        """Return the state as it is exported: at most MAX_QUEUES and MAX_SCHEDULES, and what the doctor has found.

        Instead of schedules it has late: for how long the next tick of each has been due (seconds), by name. findings
        are lists of check, severity and number.
        """
        state = self.gauges(database)
        queues = state["queues"]
        if len(queues) > MAX_QUEUES:
            largest = sorted(queues, key=lambda name: queues[name]["available"], reverse=True)[:MAX_QUEUES]
            state["queues"] = {name: queues[name] for name in largest}
        for key in ("workers", "paused"):  # a queue that is served or paused may hold no job
            state[key] = _first(state[key])
        state["late"] = self._lateness(state.pop("schedules"), state["at"])
        found = Counter((finding.check, finding.severity.value) for finding in findings)
        state["findings"] = [[*names, number] for names, number in found.items()]
        return state

    def _lateness(self, schedules: list[tuple[str, str, str, float]], now: float) -> dict[str, float]:
        """Return how late the next tick of each schedule is (seconds)."""
        known = self._due
        keys = [(name, expression, timezone, last) for name, expression, timezone, last in schedules]
        self._due = due = {key: known[key] if key in known else _due(*key) for key in keys}
        late = {key[0]: max(now - at, 0.0) for key, at in due.items() if at is not None}
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
