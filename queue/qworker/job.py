"""A snapshot of a job, with the operations on it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, overload

from qworker.decoding import decode, decode_errors, decode_object

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # `Job` alone means Job[Any]. Python itself has such defaults from 3.13 on.
    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)

#: What the coroutine of an asynchronous handler returns.
A = TypeVar("A")


class JobState(StrEnum):
    """The state of a job."""

    #: Waits until its run_at: a delay, or the backoff before the next attempt.
    SCHEDULED = "scheduled"
    #: Waits for other jobs.
    BLOCKED = "blocked"
    #: Ready to be claimed.
    AVAILABLE = "available"
    #: Claimed by a worker.
    RUNNING = "running"
    #: No attempt follows. The job is kept until it is retried or discarded.
    FAILED = "failed"
    #: Ended with a result.
    COMPLETED = "completed"
    #: Cancelled by a user, or expired before it was started.
    CANCELLED = "cancelled"
    #: Failed and then discarded.
    DISCARDED = "discarded"
    #: Known only as the holder of a unique key: the job has ended and its history has expired.
    FORGOTTEN = "forgotten"


#: The states of jobs that wait to be run.
WAITING = (JobState.SCHEDULED, JobState.BLOCKED, JobState.AVAILABLE)
#: The states of a job that has not ended.
UNFINISHED = (*WAITING, JobState.RUNNING)


class JobActions(Protocol):
    """The operations behind the methods of a job; implemented by `qworker.admin.Admin`."""

    def show(self, job_id: int, *, conn: Any = None) -> "Job":
        """Return a job; here and below, conn is the connection on which it was enqueued or read."""

    def cancel(self, *job_ids: int, conn: Any = None) -> dict[int, JobState]:
        """Cancel jobs; return the states of those that had not ended."""

    def retry(self, *job_ids: int, args: Mapping[str, Any] | None = None, conn: Any = None) -> list[int]:
        """Retry failed jobs, with other arguments if they are given; return the ids of those that had failed."""

    def again(self, *job_ids: int, args: Mapping[str, Any] | None = None, conn: Any = None) -> dict[int, int]:
        """Enqueue copies of jobs that have ended or failed; return the ids of the copies."""

    def check_arguments(self, task: str, given: Mapping[str, Any] | Sequence[Any], /) -> Mapping[str, Any]:
        """Return arguments as they are stored."""

    def discard(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Discard failed jobs; return the ids of those that had failed."""

    def wait(self, job_id: int, timeout: float | None, conn: Any) -> Any:
        """Wait for a job that was enqueued on conn."""


@dataclass(frozen=True, kw_only=True)
class Job(Generic[R_co]):
    """A snapshot of a job; `refresh` returns a newer one. R_co is the type of what its handler returns."""

    #: The id, unique in the schema.
    id: int
    #: The state.
    state: JobState
    #: The name of the queue.
    queue: str
    #: 0 (first) to 9.
    priority: int
    #: The name of the task.
    task: str
    #: The arguments by name; "*" holds those that can only be passed by position. If the row was edited by hand and the
    #: JSON cannot be decoded, this and other JSON fields are a qworker.decoding.Unreadable.
    args: dict[str, Any]
    #: The number of attempts that have begun.
    attempt: int = 0
    #: The number of attempts that killed their worker.
    crashes: int = 0
    #: How often the whole node was lost while the job ran. These attempts are not counted.
    node_losses: int = 0
    #: When it was enqueued; None if its history has expired.
    enqueued_at: datetime | None = None
    #: Since when it may start, after a delay or a retry; None: since it was enqueued. Kept when it starts.
    run_at: datetime | None = None
    #: When the newest attempt began.
    claimed_at: datetime | None = None
    #: When it completed, failed, or was cancelled.
    finished_at: datetime | None = None
    #: Seconds that the handler of the last attempt ran; 0 if under a millisecond, None before the end.
    duration: float | None = None
    #: The return value of the handler, decoded from JSON.
    result: Any = None
    #: The last progress report of the handler: {"fraction": 0.4, "text": "..."}.
    progress: Mapping[str, Any] | None = None
    #: One object for each failed attempt, oldest first; the last fifty are kept:
    #: {"at": "2026-01-31T09:00:00.000+00:00", "type": ..., "message": ..., "traceback": ..., "cause": null,
    #: "attempt": 1, "fingerprint": "5ba80ad578f47c61", "group": {"type": ..., "message": "order <n> not found",
    #: "frame": "shop.tasks:charge"}, "ran": 0.25}, and for a crash what is known about the process. ran: how long the
    #: attempt ran (seconds); `qworker.attempts` computes all times from it. Errors with one fingerprint have the same
    #: cause; an attempt that was cancelled has none.
    errors: tuple[Mapping[str, Any], ...] = ()
    #: The tags, for searching.
    tags: tuple[str, ...] = ()
    #: When a user requested the cancellation of the running job.
    cancel_requested_at: datetime | None = None
    #: Whether it runs its task's failure hook, for the failed job whose id is in `args`, instead of the task.
    hook: bool = False
    #: What qworker notes about its origin, or None. That of a task of Django may have its run_after. The job of a tick
    #: has the name of the schedule and the time of the tick: {"cron": "report", "tick": "2026-01-31T09:00:00+00:00"}.
    #: With tracing, "trace" holds the context of the span that has enqueued it.
    meta: Mapping[str, Any] | None = None
    #: The id of the node that is running it or ran its last attempt; None if it waits or has failed.
    node: int | None = None
    #: True if enqueueing returned this job instead of a new one because it holds the unique key.
    duplicate: bool = False
    _actions: JobActions | None = field(default=None, repr=False, compare=False)
    #: Returns the caller's connection in whose open transaction the job was enqueued or read, or None after that.
    _conn: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether the job has ended; a failed one may still be retried."""
        return self.state not in UNFINISHED

    @overload
    def wait(self: "Job[Coroutine[Any, Any, A]]", timeout: float | None = None) -> A: ...
    @overload
    def wait(self, timeout: float | None = None) -> R_co: ...
    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the job to end and return its result; that of a typed task has the type of its annotation.

        Polls the database after 10 ms, then at growing intervals of up to 250 ms. Raises JobFailed, JobCancelled,
        JobNotFound, and TimeoutError after `timeout` seconds (None: no timeout). Raises InvalidOperation inside a
        handler and inside the transaction that enqueues the job, where waiting could never end.
        """
        return self._bound_actions.wait(self.id, timeout, self._transaction)

    def refresh(self) -> "Job[R_co]":
        """Read the job again; raises JobNotFound if its history has expired.

        Like `cancel`, `retry`, `again` and `discard`, it joins the transaction that enqueued the job while that is
        open, or else the open Django transaction: a change is committed or rolled back with it.
        """
        return self._bound_actions.show(self.id, conn=self._transaction)

    def cancel(self) -> bool:
        """Cancel the job at once if it waits; if it is running, interrupt it within about a second.

        Returns False if the job had already ended.
        """
        return self.id in self._bound_actions.cancel(self.id, conn=self._transaction)

    def retry(self, args: Mapping[str, Any] | Sequence[Any] | None = None) -> bool:
        """Make the failed job available again with all its attempts; return False if it has not failed.

        args: other arguments, by name or by position, of values that JSON has. They are checked against the task:
        raises UnknownTask if this application does not have it, TypeError if they do not fit its signature, ValueError
        if a typed task rejects them.
        """
        return self.id in self._bound_actions.retry(self.id, args=self._checked(args), conn=self._transaction)

    def again(self, args: Mapping[str, Any] | Sequence[Any] | None = None) -> "Job[R_co] | None":
        """Enqueue a copy of the job, which has ended or failed; return the copy. None: it has not ended, or is a hook.

        The copy has the task, queue, priority and tags of the job, and its arguments unless others are given, for which
        see `retry`. It holds no unique key.
        """
        found = self._bound_actions.again(self.id, args=self._checked(args), conn=self._transaction)
        return self._bound_actions.show(found[self.id], conn=self._transaction) if self.id in found else None

    def discard(self) -> bool:
        """Move the failed job to the history as discarded; return False if it has not failed."""
        return self.id in self._bound_actions.discard(self.id, conn=self._transaction)

    def _checked(self, args: Mapping[str, Any] | Sequence[Any] | None) -> Mapping[str, Any] | None:
        return None if args is None else self._bound_actions.check_arguments(self.task, args)

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


def new_job(**values: Any) -> Job:
    """Return a job with these fields and the defaults of all others.

    This sets all fields at once. The __init__ of a frozen dataclass assigns twenty fields one by one, which would be
    the slowest step of enqueueing.
    """
    job = Job.__new__(Job)
    vars(job).update(values)
    return job


def job_from_row(
    row: Mapping[str, Any],
    actions: JobActions | None = None,
    *,
    duplicate: bool = False,
    conn: Callable[[], Any] | None = None,
) -> Job:
    """Return the job of a row: columns named as the fields, times in seconds since 1970, JSON as text.

    Never raises for a row that was edited by hand: an unreadable value affects only its own field.
    """
    values = dict(row)
    for name in ("enqueued_at", "run_at", "claimed_at", "finished_at", "cancel_requested_at"):
        values[name] = to_datetime(values[name])
    values["args"] = decode_object(values["args"])
    values["result"] = decode(values["result"])
    for name in ("progress", "meta"):
        values[name] = values[name] and decode_object(values[name])
    values["errors"] = decode_errors(values["errors"])
    values["tags"] = tuple(map(str, values["tags"] or ()))
    values["state"] = JobState(values["state"])
    return Job(**values, duplicate=duplicate, _actions=actions, _conn=conn)


def to_datetime(epoch: float | None) -> datetime | None:
    """Return the UTC datetime for seconds since 1970, clamped to Python's range; PostgreSQL's includes infinity."""
    if epoch is None:
        return None
    if epoch <= _BEGIN:
        return _FIRST
    return datetime.fromtimestamp(epoch, UTC) if epoch < _LATEST_SECONDS else _LATEST
