"""Reads jobs, queues and nodes, and cancels, retries or discards jobs: for the command line and the methods of Job."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, sleep
from typing import Any, Never

import psycopg
from psycopg.pq import TransactionStatus

from qworker.ambient import Ambient
from qworker.backoff import Backoff
from qworker.context import running
from qworker.db.drivers import Caller, in_transaction, raw, rows
from qworker.db.pool import Pool
from qworker.db.sessions import reference
from qworker.db.statements import load
from qworker.decoding import decode, decode_errors, decode_object
from qworker.errors import InvalidOperation, JobCancelled, JobFailed, JobNotFound
from qworker.job import UNFINISHED, Job, JobState, job_from_row, to_datetime
from qworker.options import UNSET
from qworker.queues import QueuePause, Queues, QueueStatus, pause_of, resume_command
from qworker.spec import JobSpec
from qworker.status import NodeStatus, ScheduleStatus

#: The delay between two queries of `wait`.
WAIT_POLL = Backoff(0.01, 0.25)
#: Maximum number of jobs that `iterate` reads at once.
PAGE = 500
#: The states of jobs that wait to be run.
WAITING = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.BLOCKED)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue by its name."""

    name: str
    admin: "Admin" = field(repr=False)

    def size(self, state: JobState | str | None = None) -> int:
        """Return the number of jobs in the given state; by default of those available, scheduled or blocked."""
        return self.admin.size(self.name, *(WAITING if state is None else [JobState(state)]))

    def pause(self, *, reason: str | None = None, by: str | None = None) -> bool:
        """Let no node claim jobs of the queue until it is resumed; return False if it was already paused.

        Jobs that run finish, and jobs can still be enqueued. The change commits at once, and takes effect within 1.5 s
        on each node whose scheduler reaches the database. `by` is user@host by default.
        """
        return bool(self.admin.pause(self.name, reason=reason, by=by))

    def resume(self) -> bool:
        """Let nodes claim jobs of the queue again; return False if it was not paused."""
        return bool(self.admin.resume(self.name))

    @property
    def paused(self) -> QueuePause | None:
        """Since when, by whom and why the queue is paused; None if it is not."""
        return next(iter(self.admin.paused(self.name)), None)


class Admin:
    """The operations on one schema; each is one statement.

    Operations on jobs join the caller's transaction: that of `conn` while it is open, or else Django's. All others
    commit at once.
    """

    def __init__(
        self,
        pool: Pool,
        ambient: Ambient | None = None,
        load_result: Callable[[str, Any], Any] = lambda _task, result: result,
    ) -> None:
        """load_result converts a result that was decoded from JSON, given the name of the task."""
        self._pool = pool
        self._ambient = ambient or Ambient(pool)
        self._load_result = load_result
        self._sql = load("admin", pool.schema)
        self._queues = Queues(pool.schema)

    def show(self, job_id: int, *, conn: Any = None) -> Job:
        """Return a job; raises JobNotFound if it does not exist."""
        return self._show(job_id, self._ambient.joined(conn))

    def get(self, job_id: int, conn: Any = UNSET) -> Job:
        """Return a job read on the caller's connection; see `App.job`."""
        return self._show(job_id, self._ambient.reader(conn))

    def _show(self, job_id: int, joined: Caller | None) -> Job:
        # The snapshot of a transaction may be older than the job.
        for transaction in [joined, None] if joined is not None and in_transaction(joined) else [joined]:
            for row in self._query("show", {"id": job_id}, transaction):
                reader = None if transaction is None else reference(transaction)
                return job_from_row(row._asdict(), self, conn=reader)
        raise _not_found(job_id)

    def show_many(self, job_ids: Sequence[int]) -> list[Job]:
        """Return those of the jobs that exist, read on the caller's connection."""
        rows = self._query("show_many", {"ids": list(job_ids)}, self._ambient.reader())
        found = {job.id: job for job in (job_from_row(row._asdict(), self) for row in rows)}
        return [found[job_id] for job_id in job_ids if job_id in found]

    def find(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        unique: str | None = None,
        below: int | None = None,
        limit: int = 50,
        conn: Any = UNSET,
    ) -> list[Job]:
        """Return jobs, newest first; unique is a key that they hold, `below` the last id of the page before.

        conn: see `App.job`.
        """
        wanted = None if state is None else JobState(state).value
        parameters = {
            "state": wanted, "queue": queue, "task": task, "tag": tag, "key": unique, "below": below, "limit": limit
        }  # fmt: skip
        caller = self._ambient.reader(conn)
        name = "find" if unique is None else "find_holders"
        reader = None if caller is None else reference(caller)
        return [job_from_row(row._asdict(), self, conn=reader) for row in self._query(name, parameters, caller)]

    def iterate(self, *, limit: int | None = None, conn: Any = UNSET, **wanted: Any) -> Iterator[Job]:
        """Yield jobs, newest first, read page by page; see `find` for what can be wanted."""
        JobState(wanted.get("state") or JobState.AVAILABLE)  # an invalid state raises here and not at the first job
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be 0 or more, or None for all jobs, not {limit!r}")
        return self._pages(limit, conn, wanted)

    def _pages(self, limit: int | None, conn: Any, wanted: Mapping[str, Any]) -> Iterator[Job]:
        left, below = float("inf") if limit is None else limit, None
        while left > 0:
            size = int(min(left, PAGE))
            page = self.find(below=below, limit=size, conn=conn, **wanted)
            yield from page
            if len(page) < size:
                return
            left, below = left - size, page[-1].id

    def cancel(self, *job_ids: int, conn: Any = None) -> dict[int, JobState]:
        """Cancel jobs. Return those that had not ended: `cancelled` now, or `running` and asked to stop."""
        return {
            row.id: JobState(row.state)
            for row in self._query("cancel", {"ids": list(job_ids)}, self._ambient.joined(conn))
        }

    def retry(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Make failed jobs available again with all their attempts; return the ids of those that had failed."""
        return sorted(row.id for row in self._query("retry", {"ids": list(job_ids)}, self._ambient.joined(conn)))

    def discard(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Move failed jobs to the history as discarded; return the ids of those that had failed."""
        return sorted(row.id for row in self._query("discard", {"ids": list(job_ids)}, self._ambient.joined(conn)))

    def sizes(self) -> dict[str, dict[JobState, int]]:
        """Return the number of jobs of each queue in each state, without those in the history."""
        sizes: dict[str, dict[JobState, int]] = {}
        for row in self._query("sizes"):
            sizes.setdefault(row.queue, {})[JobState(row.state)] = row.jobs
        return sizes

    def queues(self) -> list[QueueStatus]:
        """Return the queues that hold jobs or are served by a node, ordered by name."""
        return [
            QueueStatus(
                name=row.queue,
                jobs={JobState(state): count for state, count in decode_object(row.jobs).items()},
                oldest_age=row.oldest_age,
                nodes=tuple(row.nodes),
                paused=None
                if row.paused_at is None
                else pause_of(
                    queue=row.queue, paused_at=row.paused_at, paused_by=row.paused_by, pause_reason=row.pause_reason
                ),
            )
            for row in self._query("queues")
        ]

    def pause(self, *queues: str, reason: str | None = None, by: str | None = None) -> list[str]:
        """Pause queues on all nodes; return those that were not paused. The change commits at once."""
        with self._pool.connection(None) as conn:
            return self._queues.pause(conn, queues, reason, by)

    def resume(self, *queues: str) -> list[str]:
        """Resume queues; return those that were paused. The change commits at once."""
        with self._pool.connection(None) as conn:
            return self._queues.resume(conn, queues)

    def paused(self, *queues: str) -> list[QueuePause]:
        """Return the paused ones of these queues, or of all if none is named."""
        with self._pool.connection(None) as conn:
            return self._queues.paused(conn, queues or None)

    def size(self, queue: str, *states: JobState) -> int:
        """Return the number of jobs of a queue in these states."""
        (row,) = self._query("size", {"queue": queue, "states": [state.value for state in states]})
        return int(row.jobs)

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes that have not been declared dead."""
        return [
            NodeStatus(
                id=row.id,
                name=row.name,
                version=row.version,
                queues=tuple(map(str, row.queues)),
                worker_count=row.worker_count,
                idle=row.idle,
                started_at=_at(row.started_at),
                heartbeat_at=_at(row.heartbeat_at),
                heartbeat_age=row.heartbeat_age,
                lease_seconds=row.lease_seconds,
                state=decode_object(row.state),
            )
            for row in self._query("nodes")
        ]

    def schedules(self) -> list[ScheduleStatus]:
        """Return the schedules stored in the database, with their last ticks."""
        return [
            ScheduleStatus(
                name=row.name,
                task=row.task,
                expression=row.expression,
                timezone=row.timezone,
                last_tick=to_datetime(row.last_tick),
                nodes=tuple(row.nodes),
            )
            for row in self._query("schedules")
        ]

    def wait(self, job_id: int, timeout: float | None = None, conn: Any = None) -> Any:
        """Wait for a job to end and return its result; see `Job.wait`. conn is the connection that enqueued it."""
        if running.get() is not None:
            raise InvalidOperation(
                f"wait() for job {job_id} inside a handler would block a worker that the job may need: enqueue the "
                "next step from the handler of that job"
            )
        begun, polls = monotonic(), 0
        # The caller's transaction may have ended the job itself.
        found = self._own_outcome(job_id, conn) or self._outcome(job_id)
        while True:
            if found is None:
                self._explain_absence(job_id, conn)
            match found.state:
                case JobState.COMPLETED:
                    return self._load_result(found.task, decode(found.result))
                case JobState.FAILED | JobState.DISCARDED:
                    raise JobFailed(job_id, _last(found.error))
                case JobState.CANCELLED:
                    raise JobCancelled(job_id, _last(found.error))
            left = float("inf") if timeout is None else begun + timeout - monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} is still {found.state} after {timeout:g} s{self._pause_hint(job_id)}")
            polls += 1
            sleep(min(WAIT_POLL.delay(polls), left))
            found = self._outcome(job_id)

    def _outcome(self, job_id: int, joined: Caller | None = None) -> Any:
        return next(iter(self._query("outcome", {"id": job_id}, joined)), None)

    def _own_outcome(self, job_id: int, conn: Any) -> Any:
        """Return the outcome of a job that has ended, as the caller's transaction sees it, or None."""
        joined = self._ambient.joined(conn)
        if not isinstance(joined, psycopg.Connection) or joined.info.transaction_status != TransactionStatus.INTRANS:
            return None
        found = self._outcome(job_id, joined)
        return None if found is None or JobState(found.state) in UNFINISHED else found

    def holder(self, conn: Caller, job_id: int, spec: JobSpec) -> Job:
        """Return the job that holds a unique key, read on the connection that tried to take the key."""
        for row in rows(conn, self._sql["show"], {"id": job_id}):
            return job_from_row(row._asdict(), self, duplicate=True)
        return self.unseen_holder(job_id, JobState.FORGOTTEN, spec)

    def unseen_holder(self, job_id: int, state: str, spec: JobSpec) -> Job:
        """Return the job that holds a unique key, if no more is known of it than its id and its state."""
        return Job(
            id=job_id, state=JobState(state), queue=spec.queue, priority=spec.priority, task=spec.task, args={},
            duplicate=True, _actions=self,
        )  # fmt: skip

    def _query(self, name: str, parameters: Mapping[str, Any] | None = None, joined: Caller | None = None) -> list[Any]:
        """Return the rows as named tuples."""
        joined = joined or self._ambient.default()
        with self._pool.connection(joined) as conn:
            return rows(conn, self._sql[name], parameters)

    def _pause_hint(self, job_id: int) -> str:
        """Return the reason why a job in a paused queue waits, for an error message."""
        with self._pool.connection(None) as conn:
            try:
                pause = self._queues.holding(conn, job_id)
            except psycopg.errors.InsufficientPrivilege:  # of a role that may read jobs only
                return ""
        return "" if pause is None else f": queue {pause.queue!r} is paused {pause}; {resume_command(pause.queue)}"

    def _explain_absence(self, job_id: int, conn: Any) -> Never:
        joined = self._ambient.joined(conn)
        if (
            joined is not None
            and in_transaction(joined)
            and (raw(joined) is conn or self._query("outcome", {"id": job_id}, joined))
        ):
            raise InvalidOperation(
                f"wait() for job {job_id} inside the transaction that enqueued it would never return, because no "
                "worker sees the job before the commit: commit first (in a test, run it with qworker.testing.drain)"
            )
        raise _not_found(job_id)


def _not_found(job_id: int) -> JobNotFound:
    return JobNotFound(
        f"job {job_id} not found: it was never enqueued, was rolled back, is not committed yet, or has expired"
    )


def _last(error: str | None) -> Mapping[str, Any] | None:
    found = decode_errors(error)
    return found[-1] if found else None


def _at(epoch: float) -> datetime:
    found = to_datetime(epoch)
    assert found is not None  # noqa: S101
    return found
