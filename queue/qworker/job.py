"""A job as it was when it was looked at, and what can be done with it."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from qworker.decoding import decode, decode_errors, decode_object


class JobState(StrEnum):
    """Where a job stands in its life."""

    #: Waits for its time: a delay, or the pause before the next attempt.
    SCHEDULED = "scheduled"
    #: Waits for other jobs.
    BLOCKED = "blocked"
    #: Ready to be claimed.
    AVAILABLE = "available"
    #: Claimed by a worker.
    RUNNING = "running"
    #: Attempts or crashes are used up; kept until somebody retries or discards it.
    FAILED = "failed"
    #: Ended with a result.
    COMPLETED = "completed"
    #: Ended before its end, or expired before its start.
    CANCELLED = "cancelled"
    #: Had failed, and was put away.
    DISCARDED = "discarded"
    #: Known only as the holder of a unique key: it ended so long ago that its history is over.
    FORGOTTEN = "forgotten"


#: The states in which a job still has something before it.
UNFINISHED = (JobState.SCHEDULED, JobState.BLOCKED, JobState.AVAILABLE, JobState.RUNNING)


class JobActions(Protocol):
    """Where a job turns to with questions about itself: `qworker.admin.Admin`."""

    def show(self, job_id: int, *, conn: Any = None) -> "Job":
        """Look at a job; conn: the connection it was made or seen on, for this and the following."""

    def cancel(self, *job_ids: int, conn: Any = None) -> dict[int, JobState]:
        """Cancel jobs; the states of those that were not over."""

    def retry(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Run failed jobs again; the ids of those that had failed."""

    def discard(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Put failed jobs away; the ids of those that had failed."""

    def wait(self, job_id: int, timeout: float | None, conn: Any) -> Any:
        """Wait for a job that was enqueued on conn."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it was when it was looked at; `refresh` looks again."""

    #: Its number, unique in the schema.
    id: int
    #: Where it stands.
    state: JobState
    #: Name of its queue.
    queue: str
    #: 0 (first) to 9.
    priority: int
    #: Name of its task.
    task: str
    #: Arguments by name; "*" holds those given by position, where the signature leaves no other way. A
    #: qworker.decoding.Unreadable, as other fields of JSON, if somebody has written into the row what cannot be read.
    args: dict[str, Any]
    #: How many attempts have begun.
    attempt: int = 0
    #: How many of them killed their worker.
    crashes: int = 0
    #: How often the whole node was lost while the job ran; no attempt is charged for that.
    node_losses: int = 0
    #: When it was enqueued; None if that is forgotten.
    enqueued_at: datetime | None = None
    #: When it may start; None unless scheduled.
    run_at: datetime | None = None
    #: When the newest attempt began.
    claimed_at: datetime | None = None
    #: When it completed, failed for good, or was cancelled.
    finished_at: datetime | None = None
    #: Seconds the last attempt's handler ran; 0 when under a millisecond, None before the end.
    duration: float | None = None
    #: What the handler returned, as JSON gave it back.
    result: Any = None
    #: What the handler last reported: {"fraction": 0.4, "text": "..."}.
    progress: Mapping[str, Any] | None = None
    #: One object for each attempt that went wrong, oldest first, the newest fifty.
    errors: tuple[Mapping[str, Any], ...] = ()
    #: Words by which people find it.
    tags: tuple[str, ...] = ()
    #: When somebody asked a running job to stop.
    cancel_requested_at: datetime | None = None
    #: Whether it runs its task's failure hook, for the job whose id is in `args`, and not the task.
    hook: bool = False
    #: True when enqueueing found this job instead of making another, because of its unique key.
    duplicate: bool = False
    _actions: JobActions | None = field(default=None, repr=False, compare=False)
    #: Weak reference to the caller's connection in whose open transaction the job was made or seen.
    _conn: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more, unless somebody retries it."""
        return self.state not in UNFINISHED

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its result.

        Asks the database after 10 ms and then ever less often, down to four times a second. Raises JobFailed,
        JobWasCancelled, JobNotFound, TimeoutError after `timeout` seconds (None waits for ever), and Refused where
        waiting could never end: inside a handler, and in the transaction that enqueues the job.
        """
        return self._bound_actions.wait(self.id, timeout, self._transaction)

    def refresh(self) -> "Job":
        """Look at the job again; raises JobNotFound when its history is over.

        Like `cancel`, `retry` and `discard` it joins the transaction that made the job while this is open, or else a
        Django transaction that is running here: what it changes is committed or rolled back with it.
        """
        return self._bound_actions.show(self.id, conn=self._transaction)

    def cancel(self) -> bool:
        """Cancel the job: at once if it waits; a running one is interrupted within about a second.

        Returns False when it was over already.
        """
        return self.id in self._bound_actions.cancel(self.id, conn=self._transaction)

    def retry(self) -> bool:
        """Let the failed job run again, with all its attempts; returns False when it has not failed."""
        return self.id in self._bound_actions.retry(self.id, conn=self._transaction)

    def discard(self) -> bool:
        """Put the failed job away; returns False when it has not failed."""
        return self.id in self._bound_actions.discard(self.id, conn=self._transaction)

    @property
    def _transaction(self) -> Any:
        return None if self._conn is None else self._conn()

    @property
    def _bound_actions(self) -> JobActions:
        if self._actions is None:
            raise LookupError(f"job {self.id} was not read from a database")
        return self._actions


_FIRST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_BEGIN, _LATEST_SECONDS = _FIRST.timestamp(), _LATEST.replace(microsecond=0).timestamp()

#: The columns of a job as the queries give them, see `from_row`.
_COLUMNS = tuple(f.name for f in fields(Job) if f.name not in {"duplicate", "_actions", "_conn"})


def new_job(**values: Any) -> Job:
    """Make a job of these fields and the defaults of all others.

    At once, where a frozen dataclass assigns twenty fields one by one: enqueueing has nothing that takes longer.
    """
    job = Job.__new__(Job)
    vars(job).update(values)
    return job


def from_row(
    row: Sequence[Any], actions: JobActions | None = None, *, duplicate: bool = False, conn: Any = None
) -> Job:
    """Make a job of a row: columns in the order of the fields, moments as seconds since 1970, JSON as text.

    Whatever a row holds, it makes a job: a value that cannot be read costs its own field alone.
    """
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in ("enqueued_at", "run_at", "claimed_at", "finished_at", "cancel_requested_at"):
        values[name] = to_datetime(values[name])
    values["args"] = decode_object(values["args"])
    values["result"] = decode(values["result"])
    values["progress"] = values["progress"] and decode_object(values["progress"])
    values["errors"] = decode_errors(values["errors"])
    values["tags"] = tuple(map(str, values["tags"] or ()))
    values["state"] = JobState(values["state"])
    return Job(**values, duplicate=duplicate, _actions=actions, _conn=None if conn is None else weakref.ref(conn))


def to_datetime(epoch: float | None) -> datetime | None:
    """Return the UTC moment for seconds since 1970; PostgreSQL's go further than Python's, to infinity."""
    if epoch is None:
        return None
    if epoch <= _BEGIN:
        return _FIRST
    return datetime.fromtimestamp(epoch, UTC) if epoch < _LATEST_SECONDS else _LATEST
