"""The worker that runs a job, and since when, as reported by the node with its last heartbeat."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from qworker.status import NodeStatus
from qworkerd.cli.tables import text


@dataclass(frozen=True)
class Run:
    """The run of a job by a worker."""

    node: str
    worker: object
    pid: object
    #: When the handler was called; None if the node does not report it.
    since: datetime | None
    #: When the timeout interrupts it; None without a timeout.
    until: datetime | None

    def __str__(self) -> str:
        parts = [f"on {self.node}, worker {self.worker} (pid {self.pid})", span(self.since, self.until)]
        return ", ".join(part for part in parts if part)


def runs(nodes: Iterable[NodeStatus]) -> dict[int, Run]:
    """Return the runs of all running jobs, by job id."""
    found = {}
    for node in nodes:
        for worker in workers(node):
            if isinstance(job := worker.get("job"), int):
                since, until = times(node, worker)
                found[job] = Run(node.name, worker.get("worker"), worker.get("pid"), since, until)
    return found


def workers(node: NodeStatus) -> list[Mapping[str, Any]]:
    """Return the workers that a node reports; a node of another version may report anything."""
    found = node.state.get("workers")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def times(node: NodeStatus, worker: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return when a worker started its job and when the timeout interrupts it, by the database's clock."""
    return _shifted(node.heartbeat_at, worker.get("ran"), -1), _shifted(node.heartbeat_at, worker.get("left"), 1)


def span(since: datetime | None, until: datetime | None) -> str:
    """Format the start and the end of a run."""
    times = [("since", since), ("until", until)]
    return ", ".join(f"{name} {local_time(at)}" for name, at in times if at is not None)


def local_time(at: datetime) -> str:
    """Return a time in the local zone, without the date if it is today."""
    now = datetime.now(UTC)
    shown = text(at)
    return shown.partition(" ")[2] if abs(at - now) < timedelta(days=1) and shown[:10] == text(now)[:10] else shown


def _shifted(at: datetime, seconds: object, sign: int) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    try:
        return at + sign * timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None
