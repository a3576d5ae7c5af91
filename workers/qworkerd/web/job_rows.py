"""A job as a row of a list: what fits into a line, without its arguments and tracebacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qworker.decoding import Unreadable
from qworker.job import Job, JobState
from qworker.queues import QueuePause
from qworker.status import NodeStatus, WorkerStatus
from qworkerd.web import texts

#: Maximum number of characters of an error's message, and tags of a job.
MAX_MESSAGE, MAX_TAGS = 300, 20
#: The states of jobs that wait while their queue is paused.
WAITING = frozenset({JobState.AVAILABLE, JobState.SCHEDULED})


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list."""

    id: int
    state: JobState
    queue: str
    task: str
    priority: int
    #: The number of attempts that have begun.
    attempt: int
    enqueued_at: datetime | None
    run_at: datetime | None
    claimed_at: datetime | None
    finished_at: datetime | None
    #: Seconds that the handler of the last attempt ran.
    duration: float | None
    tags: tuple[str, ...]
    #: Whether it runs the failure hook of its task.
    hook: bool
    #: Whether its queue is paused, so that it does not start.
    paused: bool
    #: The name of the node that runs it, and its worker; None if it does not run or that is not known yet.
    node: str | None
    pid: int | None
    since: datetime | None
    #: The progress from 0 to 1, if the handler reports it.
    progress: float | None
    #: The last error in one line; None without one, or without the right to see it.
    error: str | None

    @property
    def when(self) -> datetime | None:
        """The time that says most about it: when it is due, has ended, began or was enqueued."""
        if self.state is JobState.SCHEDULED:
            return self.run_at
        return self.finished_at or (self.claimed_at if self.state is JobState.RUNNING else None) or self.enqueued_at


def rows_of(
    jobs: Iterable[Job], nodes: Iterable[NodeStatus], pauses: Iterable[QueuePause], *, with_error: bool
) -> list[JobRow]:
    """Return the rows of jobs; nodes: those that may run some of them."""
    workers = {worker.job: (node.name, worker) for node in nodes for worker in node.workers if worker.job is not None}
    paused = {pause.queue for pause in pauses}
    return [_row(job, workers.get(job.id), paused, with_error=with_error) for job in jobs]


def last_error(job: Job) -> str | None:
    """Return the type and the message of the last error; None without one."""
    if not job.errors:
        return None
    last = job.errors[-1]
    if isinstance(last, Unreadable):
        return texts.errors.unreadable(last["unreadable"])
    kind, message = str(last.get("cause") or last.get("type") or ""), str(last.get("message") or "")
    return (message if kind in message else f"{kind}: {message}").replace("\n", " ")[:MAX_MESSAGE]


def progress_of(job: Job) -> float | None:
    """Return the progress that the handler has reported, from 0 to 1."""
    return _fraction(job.progress) if job.progress else None


def _fraction(progress: Mapping[str, Any]) -> float | None:
    found = progress.get("fraction")
    valid = isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found <= 1
    return float(found) if valid else None  # type: ignore[arg-type] # a number


def _row(job: Job, run: tuple[str, WorkerStatus] | None, paused: set[str], *, with_error: bool) -> JobRow:
    node, worker = run if run is not None and job.state is JobState.RUNNING else (None, None)
    return JobRow(
        id=job.id, state=job.state, queue=job.queue, task=job.task, priority=job.priority, attempt=job.attempt,
        enqueued_at=job.enqueued_at, run_at=job.run_at, claimed_at=job.claimed_at, finished_at=job.finished_at,
        duration=job.duration, tags=job.tags[:MAX_TAGS], hook=job.hook,
        paused=job.state in WAITING and job.queue in paused, node=node, pid=None if worker is None else worker.pid,
        since=None if worker is None else worker.since, progress=progress_of(job),
        error=last_error(job) if with_error else None,
    )  # fmt: skip
