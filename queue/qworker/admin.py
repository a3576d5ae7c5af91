"""Looks at jobs, queues and nodes, and changes jobs by hand: what the command line and the methods of a job do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from qworker.ambient import Ambient
from qworker.context import running
from qworker.db.pool import Pool
from qworker.db.statements import load
from qworker.decoding import decode, decode_errors, decode_object
from qworker.errors import InvalidOperation, JobCancelled, JobFailed, JobNotFound
from qworker.job import Job, JobState, from_row, to_datetime
from qworker.spec import JobSpec

#: Seconds between two looks of `wait`: the first pause, doubled up to the second.
FIRST_POLL_PAUSE, LONGEST_POLL_PAUSE = 0.01, 0.25
#: States of jobs that wait to be run.
WAITING = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.BLOCKED)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A supervisor and its workers, as its last beat left it."""

    id: int
    #: Host and process id.
    name: str
    version: str
    queues: tuple[str, ...]
    #: How many workers it keeps.
    worker_count: int
    #: Whether it sleeps until somebody wakes it.
    idle: bool
    started_at: datetime
    #: When its newest beat was written, by the database's clock.
    heartbeat_at: datetime
    #: Seconds since then.
    silent: float
    #: Seconds without a beat after which others may declare it dead.
    lease_seconds: float
    #: What it says of its workers and schedules.
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that holds unfinished or failed jobs, or that a living node serves."""

    name: str
    #: How many jobs it holds in each state; states without any are left out.
    jobs: Mapping[JobState, int]
    #: Seconds since the oldest of its available jobs was enqueued; None without one.
    oldest: float | None
    #: The living nodes that serve it, by name.
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule some node declares or declared."""

    name: str
    task: str
    expression: str
    timezone: str
    #: The newest tick that was enqueued or skipped; None: none yet.
    last_tick: datetime | None
    #: The nodes that declare it and live, by name; without any it does not tick.
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue by its name."""

    name: str
    admin: "Admin" = field(repr=False)

    def size(self, state: JobState | str | None = None) -> int:
        """Return how many jobs wait: available, scheduled or blocked; or how many are in the given state."""
        return self.admin.size(self.name, *(WAITING if state is None else [JobState(state)]))


class Admin:
    """The operations of one schema; each is one statement.

    Those about jobs join the caller's transaction, if there is one: that of `conn` while it is open, or Django's. All
    others commit at once.
    """

    def __init__(self, pool: Pool, ambient: Ambient | None = None) -> None:
        self._pool = pool
        self._ambient = ambient or Ambient(pool)
        self._sql = load("admin", pool.schema)

    def show(self, job_id: int, *, conn: Any = None) -> Job:
        """Return a job; raises JobNotFound."""
        joined = self._ambient.joined(conn)
        for transaction in [joined, None] if joined is not None else [None]:  # a snapshot may be older than the job
            if rows := self._query("show", {"id": job_id}, transaction):
                return from_row(rows[0], self, conn=transaction)
        raise _not_found(job_id)

    def find(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        below: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return the newest jobs first; `below` an id continues an earlier list."""
        wanted = None if state is None else JobState(state).value
        parameters = {"state": wanted, "queue": queue, "task": task, "tag": tag, "below": below, "limit": limit}
        return [from_row(row, self) for row in self._query("find", parameters)]

    def cancel(self, *job_ids: int, conn: Any = None) -> dict[int, JobState]:
        """Cancel jobs; return those that were not over: `cancelled` now, or `running` and asked to stop."""
        return {
            job_id: JobState(state)
            for job_id, state in self._query("cancel", {"ids": list(job_ids)}, self._ambient.joined(conn))
        }

    def retry(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Let failed jobs run again, with all their attempts; return the ids of those that had failed."""
        return sorted(row[0] for row in self._query("retry", {"ids": list(job_ids)}, self._ambient.joined(conn)))

    def discard(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Put failed jobs away; return the ids of those that had failed."""
        return sorted(row[0] for row in self._query("discard", {"ids": list(job_ids)}, self._ambient.joined(conn)))

    def sizes(self) -> dict[str, dict[JobState, int]]:
        """Return how many jobs each queue holds in each state; what is over is not counted."""
        sizes: dict[str, dict[JobState, int]] = {}
        for queue, state, count in self._query("sizes"):
            sizes.setdefault(queue, {})[JobState(state)] = count
        return sizes

    def queues(self) -> list[QueueStatus]:
        """Return the queues that hold jobs or are served, by name."""
        return [
            QueueStatus(name, {JobState(state): n for state, n in decode_object(held).items()}, oldest, tuple(nodes))
            for name, held, oldest, nodes in self._query("queues")
        ]

    def size(self, queue: str, *states: JobState) -> int:
        """Return how many jobs a queue holds in these states."""
        row = self._query("size", {"queue": queue, "states": [state.value for state in states]})[0]
        return int(row[0])

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes that have not been declared dead."""
        return [
            NodeStatus(id_, name, version, tuple(map(str, queues)), processes, idle, _at(started), _at(seen), silent,
                       lease, decode_object(state))
            for id_, name, version, queues, processes, idle, started, seen, silent, lease, state in self._query("nodes")
        ]  # fmt: skip

    def schedules(self) -> list[ScheduleStatus]:
        """Return the schedules the database knows, with their newest ticks."""
        return [
            ScheduleStatus(name, task, expression, timezone, to_datetime(tick), tuple(nodes))
            for name, task, expression, timezone, tick, nodes in self._query("schedules")
        ]

    def wait(self, job_id: int, timeout: float | None = None, conn: Any = None) -> Any:
        """Wait for a job's end and return its result; see `Job.wait`. conn is the connection that enqueued it."""
        if running.get() is not None:
            raise InvalidOperation(
                f"wait() for job {job_id} inside a handler would hold a worker that job may need: enqueue what comes "
                "after it from its own handler"
            )
        begun, pause = monotonic(), FIRST_POLL_PAUSE
        while True:
            found = self._query("outcome", {"id": job_id})
            if not found:
                self._explain_absence(job_id, conn)
            state, result, error = found[0] if found else (None, None, None)
            match state:
                case JobState.COMPLETED:
                    return decode(result)
                case JobState.FAILED | JobState.DISCARDED:
                    raise JobFailed(job_id, _last(error))
                case JobState.CANCELLED:
                    raise JobCancelled(job_id, _last(error))
            left = float("inf") if timeout is None else begun + timeout - monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} is still {state} after {timeout:g} s")
            sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_POLL_PAUSE)

    def holder(self, conn: psycopg.Connection[Any], job_id: int, spec: JobSpec) -> Job:
        """Return the job that holds a unique key, as seen on the connection that asked for the key."""
        row = psycopg.Cursor(conn, row_factory=tuple_row).execute(self._sql["show"], {"id": job_id}).fetchone()
        if row is not None:
            return from_row(row, self, duplicate=True)
        return Job(
            id=job_id, state=JobState.FORGOTTEN, queue=spec.queue, priority=spec.priority, task=spec.task, args={},
            duplicate=True, _actions=self,
        )  # fmt: skip

    def _query(
        self, name: str, parameters: Mapping[str, Any] | None = None, joined: psycopg.Connection[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        with self._pool.connection(joined) as conn:
            if joined is None:
                return conn.execute(self._sql[name], parameters).fetchall()
            return psycopg.Cursor(conn, row_factory=tuple_row).execute(self._sql[name], parameters).fetchall()

    def _explain_absence(self, job_id: int, conn: psycopg.Connection[Any] | None) -> None:
        joined = self._ambient.joined(conn)
        if joined is not None and (joined is conn or self._query("outcome", {"id": job_id}, joined)):
            raise InvalidOperation(
                f"wait() for job {job_id} inside the transaction that enqueued it would never end, as no worker sees "
                "the job before the commit: commit first"
            )
        raise _not_found(job_id)


def _not_found(job_id: int) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id}: it never was, was rolled back or not committed yet, or its history is over"
    )


def _last(error: str | None) -> Mapping[str, Any] | None:
    found = decode_errors(error)
    return found[-1] if found else None


def _at(epoch: float) -> datetime:
    found = to_datetime(epoch)
    assert found is not None  # noqa: S101
    return found
