"""The worker that runs a job, and since when, as reported by the node with its last heartbeat."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from qworker.status import NodeStatus
from qworkerd.cli.tables import text


@dataclass(frozen=True)
class Run:
    """The run of a job by a worker."""

    node: str
    worker: int | None
    pid: int | None
    #: When the handler was called; None if the node does not report it.
    since: datetime | None
    #: When the timeout interrupts it; None without a timeout.
    until: datetime | None

    def __str__(self) -> str:
        parts = [f"on {self.node}, worker {self.worker} (pid {self.pid})", span(self.since, self.until)]
        return ", ".join(part for part in parts if part)


def runs(nodes: Iterable[NodeStatus]) -> dict[int, Run]:
    """Return the runs of all running jobs, by job id."""
    return {
        worker.job: Run(node.name, worker.number, worker.pid, worker.since, worker.until)
        for node in nodes
        for worker in node.workers
        if worker.job is not None
    }


def span(since: datetime | None, until: datetime | None) -> str:
    """Format the start and the end of a run."""
    times = [("since", since), ("until", until)]
    return ", ".join(f"{name} {local_time(at)}" for name, at in times if at is not None)


def local_time(at: datetime) -> str:
    """Return a time in the local zone, without the date if it is today."""
    now = datetime.now(UTC)
    shown = text(at)
    return shown.partition(" ")[2] if abs(at - now) < timedelta(days=1) and shown[:10] == text(now)[:10] else shown
