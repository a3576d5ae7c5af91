"""A worker's statements: claim, acknowledge, release, retry, fail. All except the claim are fenced by its token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
from psycopg import Cursor
from psycopg.rows import class_row, scalar_row, tuple_row

from qworker import program
from qworker.db.arrays import integer_array, text_array
from qworker.db.encoding import escape_unstorable
from qworker.db.prepared import PreparedStatement
from qworker.db.statements import DEFAULT_SCHEMA, Database, load
from qworker.job import JobState


class WriteSuppressed(psycopg.IntegrityError):
    """A trigger or a rule of the user suppresses a change, without an error: the row does not change."""

    #: As if the trigger had raised an error: integrity_constraint_violation.
    sqlstate = "23000"

    def __init__(self) -> None:
        super().__init__(
            "a trigger or a rule on the table suppresses this change without an error (a BEFORE trigger that returns "
            f"NULL): `{program.command('check')}` names it"
        )


class LaneJob(NamedTuple):
    """A job that can be claimed, and its lane."""

    id: int
    queue: str
    priority: int


class JobNames(NamedTuple):
    """What is known of a job that cannot be read."""

    task: str = "unknown"
    queue: str = "unknown"
    attempt: int = 0


class ClaimedJob(NamedTuple):
    """A row that the claim returns."""

    id: int
    seq: int
    priority: int
    queue: str
    task: str
    #: JSON text of an object; the worker decodes it when the job runs.
    args: str
    attempt: int
    #: How often the job's worker or node died while the job ran.
    crash_count: int
    #: Whether the job is the failure hook of another job.
    is_hook: bool
    #: Seconds since 1970.
    enqueued_at: float
    #: JSON text of the options set by .options(), usually None.
    overrides: str | None
    unknown_task_count: int
    #: How long the job waited since it could start (seconds).
    waited: float = 0.0


#: Makes a ClaimedJob of a row; `ClaimedJob._make` is a Python function around it, which takes 0.05 us more.
_claimed_job: Callable[[Sequence[Any]], ClaimedJob] = partial(tuple.__new__, ClaimedJob)


@cache
def _lane_arrays(queues: tuple[str, ...], priorities: tuple[int, ...]) -> tuple[str, str]:
    """Return the lanes of a node as array literals; cached, because they are the same in all of its claims."""
    return text_array(queues), integer_array(priorities)


def _states(rows: Iterable[tuple[Any, ...]], state: JobState) -> dict[int, JobState]:
    """Return the states of jobs that were written: `state`, or CANCELLED if the second column is true."""
    return {job: JobState.CANCELLED if cancelled else state for job, cancelled, *_ in rows}


def _next_job(
    queues: Sequence[str], priorities: Sequence[int], cursors: Sequence[int], excluded: Iterable[int]
) -> dict[str, Any]:
    """Return the parameters of the statements about the next single job."""
    return {
        "queues": text_array(queues), "priorities": integer_array(priorities), "cursors": integer_array(cursors),
        "excluded": integer_array(excluded), "limit": 1,
    }  # fmt: skip


class Claims:
    """The statements for one schema; each method takes the connection to use.

    Not thread-safe. Each method is one statement and one commit, and returns the ids it changed. If an id is missing,
    its row was locked by another session or no longer belongs to this claim; `still_claimed` distinguishes the two.
    """

    __slots__ = ("_acknowledge", "_claim", "_sql")

    def __init__(self, schema: str = DEFAULT_SCHEMA, *, exclusive: bool = True) -> None:
        """exclusive: whether the connections are used by qworker alone, so that statements can be prepared there."""
        self._sql = load("claims", schema)
        self._claim = PreparedStatement(self._sql["claim"], exclusive=exclusive)
        self._acknowledge = PreparedStatement(self._sql["acknowledge"], exclusive=exclusive)

    def claim(
        self,
        database: Database,
        *,
        node: int,
        token: int,
        queues: Sequence[str],
        priorities: Sequence[int],
        cursors: Sequence[int],
        limit: int,
    ) -> list[ClaimedJob]:
        """Claim up to `limit` jobs after the cursors, one cursor for each lane (queue and priority), most urgent first.

        The jobs are not sorted.
        """
        queue_array, priority_array = _lane_arrays(tuple(queues), tuple(priorities))
        parameters = {
            "node": node,
            "token": token,
            "queues": queue_array,
            "priorities": priority_array,
            "cursors": integer_array(cursors),
            "limit": limit,
        }
        return self._claim.fetch(database, parameters, _claimed_job)

    def claim_one(
        self,
        database: Database,
        *,
        node: int,
        token: int,
        queues: Sequence[str],
        priorities: Sequence[int],
        cursors: Sequence[int],
        excluded: Iterable[int] = (),
    ) -> int | None:
        """Claim the next job that is not in `excluded`, without reading it; return its id."""
        parameters = {"node": node, "token": token} | _next_job(queues, priorities, cursors, excluded)
        return next(iter(self._ids(database, "claim_one", parameters)), None)

    def claimed(self, database: Database, node: int, token: int) -> list[int]:
        """Return the jobs of a claim whose answer could not be read."""
        return self._ids(database, "claimed", {"node": node, "token": token})

    def first(
        self,
        database: Database,
        *,
        queues: Sequence[str],
        priorities: Sequence[int],
        cursors: Sequence[int],
        excluded: Iterable[int] = (),
    ) -> LaneJob | None:
        """Return the job that `claim_one` would claim."""
        parameters = _next_job(queues, priorities, cursors, excluded)
        return database.cursor(row_factory=class_row(LaneJob)).execute(self._sql["first"], parameters).fetchone()

    def read(self, database: Database, token: int, job: int) -> list[ClaimedJob]:
        """Return a job claimed by `claim_one`."""
        cursor = database.cursor(row_factory=class_row(ClaimedJob))
        return cursor.execute(self._sql["read"], {"id": job, "token": token}).fetchall()

    def read_names(self, database: Database, token: int, job: int) -> JobNames:
        """Return what can be read of a claimed job whose whole row cannot be read."""
        cursor = database.cursor(row_factory=class_row(JobNames))
        return cursor.execute(self._sql["read_names"], {"id": job, "token": token}).fetchone() or JobNames()

    def acknowledge(
        self, database: Database, token: int, ids: Iterable[int], *, durations: str | None = None,
        results: str | None = None,
    ) -> list[int]:  # fmt: skip
        """Move finished jobs to the history.

        durations and results are JSON objects keyed by id, or None, which is faster than an empty one. Jobs without an
        entry ran for less than a millisecond and returned None.
        """
        stored = None if results is None else escape_unstorable(database, results)
        parameters = {"ids": integer_array(ids), "token": token, "durations": durations, "results": stored}
        return self._acknowledge.fetch(database, parameters, itemgetter(0))

    def complete(self, database: Database, token: int, job: int, *, duration: float, result: str | None) -> bool:
        """Move one finished job to the history, in a transaction that the caller commits.

        Returns False if the job no longer belongs to this claim. Waits for a session that has locked the row. Raises
        WriteSuppressed if the row does not change.
        """
        cursor = Cursor(database, row_factory=tuple_row)
        if cursor.execute(self._sql["lock_claimed"], {"id": job, "token": token}).fetchone() is None:
            return False
        stored = None if result is None else escape_unstorable(database, f'{{"{job}":{result}}}')
        parameters = {
            "ids": integer_array([job]), "token": token, "durations": f'{{"{job}":{duration}}}', "results": stored,
        }  # fmt: skip
        if cursor.execute(self._sql["acknowledge"], parameters).fetchone() is None:
            raise WriteSuppressed
        return True

    def end_session(self, database: Database, pid: int, role: str) -> None:
        """Terminate the server session with this pid if its application_name ends in this role."""
        self._ids(database, "end_session", {"pid": pid, "role": role})

    def release(self, database: Database, token: int, ids: Iterable[int]) -> list[int]:
        """Release jobs that were not started: the attempt is not counted and they keep their seq."""
        return self._ids(database, "release", {"ids": integer_array(ids), "token": token})

    def retry(self, database: Database, token: int, job: int, *, delay: float, error: str) -> dict[int, JobState]:
        """Schedule the next attempt; return the job's state: it is cancelled instead if that was requested."""
        parameters = {"id": job, "token": token, "delay": delay, "error": escape_unstorable(database, error)}
        return _states(database.execute(self._sql["retry"], parameters).fetchall(), JobState.SCHEDULED)

    def snooze(
        self, database: Database, token: int, job: int, *, delay: float, unknown_task: bool = False
    ) -> list[int]:
        """Schedule a job for later without counting the attempt."""
        return self._ids(
            database, "snooze", {"id": job, "token": token, "delay": delay, "unknown_task": int(unknown_task)}
        )

    def fail(
        self, database: Database, token: int, job: int, *, error: str, hook: bool, crashes: int = 0
    ) -> dict[int, JobState]:
        """Mark a job as failed, add `crashes` to its count, and enqueue its failure hook; return the job's state.

        The job is cancelled instead if that was requested. Raises WriteSuppressed, and does not change the job, if a
        trigger suppresses the hook.
        """
        error = escape_unstorable(database, error)
        parameters = {"id": job, "token": token, "error": error, "hook": hook, "crashes": crashes}
        if not hook:
            return _states(database.execute(self._sql["fail"], parameters).fetchall(), JobState.FAILED)
        with database.transaction():
            rows = database.execute(self._sql["fail"], parameters).fetchall()
            if not all(stored for _, _, stored in rows):
                raise WriteSuppressed
        return _states(rows, JobState.FAILED)

    def give_up(self, database: Database, token: int, job: int, error: str) -> list[int]:
        """Mark a job as failed after the database rejected its outcome; store only an error and run no failure hook."""
        return self._ids(database, "give_up", {"id": job, "token": token, "error": escape_unstorable(database, error)})

    def end(
        self, database: Database, token: int, job: int, *, state: str, error: str | None, duration: float
    ) -> list[int]:
        """End a job as "cancelled" or "discarded"."""
        error = None if error is None else escape_unstorable(database, error)
        parameters = {"id": job, "token": token, "state": state, "error": error, "duration": duration}
        return self._ids(database, "end", parameters)

    def progress(self, database: Database, token: int, job: int, progress: str) -> list[int]:
        """Store the progress of a running job."""
        return self._ids(
            database, "progress", {"id": job, "token": token, "progress": escape_unstorable(database, progress)}
        )

    def still_claimed(self, database: Database, token: int, ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that still have the token."""
        return set(self._ids(database, "still_claimed", {"ids": integer_array(ids), "token": token}))

    def lock(self, database: Database, token: int, ids: Iterable[int]) -> set[int]:
        """Lock those of the jobs that still have the token, until the transaction ends; skip those that are locked."""
        return set(self._ids(database, "lock", {"ids": integer_array(ids), "token": token}))

    def existing(self, database: Database, ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that are unfinished, failed or in the history, under whatever token."""
        return set(self._ids(database, "existing", {"ids": integer_array(ids)}))

    def already_archived(self, database: Database, token: int, ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that have ended under the token."""
        return set(self._ids(database, "already_archived", {"ids": integer_array(ids), "token": token}))

    def _ids(self, database: Database, name: str, parameters: Mapping[str, Any]) -> list[int]:
        return database.cursor(row_factory=scalar_row).execute(self._sql[name], parameters).fetchall()
