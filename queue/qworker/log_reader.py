"""Reads the log lines of one job from everywhere: with its errors, in the ring of days, from its running attempt."""

from collections.abc import Callable

from qworker.db.pool import Pool
from qworker.job import Job
from qworker.job_logs import AttemptLog, Cursor, JobLogs, NewLines, behind, logs_of, merge


class LogReader:
    """Reads what is committed; `show` returns a job, or raises JobNotFound."""

    def __init__(self, pool: Pool, show: Callable[[int], Job]) -> None:
        self._pool = pool
        self._show = show
        self._logs = JobLogs(pool.schema)

    def stored(self, job: Job, attempt: int | None = None) -> list[AttemptLog]:
        """Return the logs that are stored of all attempts, or of one, oldest first; see `Admin.logs`."""
        with self._pool.connection(None) as conn:
            return merge(logs_of(job, attempt), self._logs.stored(conn, job.id, attempt))

    def after(self, job_id: int, cursor: str | None, *, follow: bool) -> NewLines:
        """Return the lines behind a cursor; see `Admin.lines_after`."""
        begin = Cursor() if cursor is None else Cursor.parse(cursor)
        live, problem = list[AttemptLog](), None
        # Read in this order, no line is skipped: an attempt runs when the one before has been stored with the job, and
        # the lines of an attempt that has not failed are stored before it ends.
        if follow:
            with self._pool.connection(None) as conn:
                live, problem = self._logs.live(conn, job_id)
        job = self._show(job_id)
        with self._pool.connection(None) as conn:
            stored = self._logs.stored(conn, job_id, since=begin.attempt)
            if follow and not job.finished:
                refused = self._logs.request(conn, job_id)
                problem = problem if live else problem or refused
        found, end = behind(merge(logs_of(job), stored, live), begin)
        return NewLines(job=job, attempts=tuple(found), cursor=str(end), problem=problem)

    def unfollow(self, job_id: int) -> None:
        """Withdraw the request for the lines of the running attempt."""
        with self._pool.connection(None) as conn:
            self._logs.withdraw(conn, job_id)
