"""Which worker runs which job, since when and until when at most: what the nodes said with their last heartbeat."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from qworker.admin import NodeStatus
from qworkerd.cli.tables import text


@dataclass(frozen=True)
class Run:
    """A job in a worker."""

    node: str
    worker: object
    pid: object
    #: When the handler was called; None if the node does not tell.
    since: datetime | None
    #: When its timeout interrupts it; None without one.
    until: datetime | None

    def __str__(self) -> str:
        told = [f"on {self.node}, worker {self.worker} (pid {self.pid})", span(self.since, self.until)]
        return ", ".join(part for part in told if part)


def runs(nodes: Iterable[NodeStatus]) -> dict[int, Run]:
    """Return where the jobs run that some worker has begun, by their ids."""
    found = {}
    for node in nodes:
        for worker in workers(node):
            if isinstance(job := worker.get("job"), int):
                since, until = times(node, worker)
                found[job] = Run(node.name, worker.get("worker"), worker.get("pid"), since, until)
    return found


def workers(node: NodeStatus) -> list[Mapping[str, Any]]:
    """Return what a node says of its workers; one of another version may say anything."""
    found = node.state.get("workers")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def times(node: NodeStatus, worker: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return since when and until when a worker runs its job, by the database's clock."""
    return _shifted(node.heartbeat_at, worker.get("ran"), -1), _shifted(node.heartbeat_at, worker.get("left"), 1)


def span(since: datetime | None, until: datetime | None) -> str:
    """Say since when and until when."""
    told = [("since", since), ("until", until)]
    return ", ".join(f"{word} {brief(at)}" for word, at in told if at is not None)


def brief(at: datetime) -> str:
    """Return a time in the local zone, without the date if that is today's."""
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
