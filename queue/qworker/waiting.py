"""Waits for the end of a job."""

from collections.abc import Callable, Mapping
from shlex import quote
from time import monotonic, sleep
from typing import Any, Never

import psycopg
from psycopg.pq import TransactionStatus

from qworker.ambient import Ambient
from qworker.backoff import Backoff
from qworker.context import running
from qworker.db.drivers import Caller, in_transaction, raw, rows
from qworker.db.pool import Pool
from qworker.db.statements import load
from qworker.decoding import decode, decode_errors
from qworker.errors import InvalidOperation, JobCancelled, JobFailed, JobNotFound
from qworker.job import UNFINISHED, JobState
from qworker.nodes import resume_command as resume_node_command
from qworker.queues import Queues, resume_command

#: The delay between two queries.
POLL = Backoff(0.01, 0.25)


class Waiter:
    """Waits for jobs of one schema."""

    def __init__(self, pool: Pool, ambient: Ambient, load_result: Callable[[str, Any], Any]) -> None:
        """load_result converts a result that was decoded from JSON, given the name of the task."""
        self._pool = pool
        self._ambient = ambient
        self._load_result = load_result
        self._sql = load("waiting", pool.schema)
        self._queues = Queues(pool.schema)

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
                raise TimeoutError(f"job {job_id} is still {found.state} after {timeout:g} s{self._obstacle(job_id)}")
            polls += 1
            sleep(min(POLL.delay(polls), left))
            found = self._outcome(job_id)

    def _outcome(self, job_id: int, joined: Caller | None = None) -> Any:
        return next(iter(self._rows(job_id, joined)), None)

    def _rows(self, job_id: int, joined: Caller | None) -> list[Any]:
        with self._pool.connection(joined or self._ambient.default()) as conn:
            return rows(conn, self._sql["outcome"], {"id": job_id})

    def _own_outcome(self, job_id: int, conn: Any) -> Any:
        """Return the outcome of a job that has ended, as the caller's transaction sees it, or None."""
        joined = self._ambient.joined(conn)
        if not isinstance(joined, psycopg.Connection) or joined.info.transaction_status != TransactionStatus.INTRANS:
            return None
        found = self._outcome(job_id, joined)
        return None if found is None or JobState(found.state) in UNFINISHED else found

    def _obstacle(self, job_id: int) -> str:
        """Return why no worker takes a job that waits, for an error message; an empty string if nothing is known."""
        with self._pool.connection(None) as conn:
            try:
                if pause := self._queues.holding(conn, job_id):
                    return f": queue {pause.queue!r} is paused {pause}; {resume_command(pause.queue)}"
                unserved = rows(conn, self._sql["unserved"], {"id": job_id})
            except psycopg.errors.InsufficientPrivilege:  # of a role that may read jobs only
                return ""
        for row in unserved:
            if row.paused:
                remedy = resume_node_command(row.paused[0])
                return f": all live nodes that serve queue {row.queue!r} are paused; {remedy}"
            return (
                f": no live node serves queue {row.queue!r}; start one with "
                f"`qworker --queues {quote(row.queue)}`, or see `qworker workers` for what runs"
            )
        return ""

    def _explain_absence(self, job_id: int, conn: Any) -> Never:
        joined = self._ambient.joined(conn)
        if joined is not None and in_transaction(joined) and (raw(joined) is conn or self._rows(job_id, joined)):
            raise InvalidOperation(
                f"wait() for job {job_id} inside the transaction that enqueued it would never return, because no "
                "worker sees the job before the commit: commit first (in a test, run it with qworker.testing.drain)"
            )
        raise not_found(job_id)


def not_found(job_id: int) -> JobNotFound:
    """Return the exception for a job that does not exist."""
    return JobNotFound(
        f"job {job_id} not found: it was never enqueued, was rolled back, is not committed yet, or has expired"
    )


def _last(error: str | None) -> Mapping[str, Any] | None:
    found = decode_errors(error)
    return found[-1] if found else None
