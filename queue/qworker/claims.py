"""A worker's statements: claim, acknowledge, hand back, retry, fail. All but the claim are fenced by its token."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from psycopg import Connection, Cursor
from psycopg.rows import tuple_row

from qworker.db.arrays import integer_array, text_array
from qworker.db.encoding import escape_unstorable
from qworker.db.prepared import PreparedStatement
from qworker.db.statements import DEFAULT_SCHEMA, load

Database = Connection[tuple[Any, ...]]


class ClaimedJob(NamedTuple):
    """A row of the claim, as it comes."""

    id: int
    seq: int
    priority: int
    queue: str
    task: str
    #: JSON text of an object; decoded only when the job runs.
    args: str
    attempt: int
    #: How often the job took its worker or node with it.
    crash_count: int
    flags: int
    #: Seconds since 1970.
    enqueued_at: float
    #: JSON text of what .options() changed, mostly None.
    overrides: str | None
    unknown_task_count: int


@cache
def _lane_arrays(queues: tuple[str, ...], priorities: tuple[int, ...]) -> tuple[str, str]:
    """Write as array literals what a node serves: it is the same in all of its claims."""
    return text_array(queues), integer_array(priorities)


class Claims:
    """The statements for one schema, on whatever connection they are given.

    For one thread at a time. Each method is one statement and one commit, and returns the ids it changed. An id that is
    missing was locked by somebody else, or is no longer this claim's: `held` tells which.
    """

    __slots__ = ("_acknowledge", "_claim", "_sql")

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        self._sql = load("claims", schema)
        self._claim = PreparedStatement(self._sql["claim"])
        self._acknowledge = PreparedStatement(self._sql["acknowledge"])

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
    ) -> list[tuple[Any, ...]]:
        """Take up to `limit` jobs behind the cursors, one for each pair of queue and priority, most urgent first.

        Returns rows in the order of ClaimedJob, not sorted.
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
        return self._claim.fetch(database, parameters)

    def claim_one(
        self,
        database: Database,
        *,
        node: int,
        token: int,
        queues: Sequence[str],
        priorities: Sequence[int],
        cursors: Sequence[int],
    ) -> int | None:
        """Take the next job without reading it; return its id."""
        parameters = {
            "node": node, "token": token, "queues": text_array(queues), "priorities": integer_array(priorities),
            "cursors": integer_array(cursors),
        }  # fmt: skip
        return next(iter(self._ids(database, "claim_one", parameters)), None)

    def read(self, database: Database, token: int, job: int) -> list[tuple[Any, ...]]:
        """Return the row of a job that was taken unread."""
        return database.execute(self._sql["read"], {"id": job, "token": token}).fetchall()

    def acknowledge(
        self, database: Database, token: int, ids: Iterable[int], *, durations: str = "{}", results: str = "{}"
    ) -> list[int]:
        """Move finished jobs to the history.

        durations and results are JSON objects keyed by id; jobs that are not in them ran for less than a millisecond
        and returned None.
        """
        stored = escape_unstorable(database, results)
        parameters = {"ids": integer_array(ids), "token": token, "durations": durations, "results": stored}
        return [row[0] for row in self._acknowledge.fetch(database, parameters)]

    def complete(self, database: Database, token: int, job: int, *, duration: float, result: str | None) -> bool:
        """Move one finished job to the history, in a transaction that the caller commits.

        False means that the job is no longer this claim's. Waits for who has locked it.
        """
        cursor = Cursor(database, row_factory=tuple_row)
        if cursor.execute(self._sql["lock_claimed"], {"id": job, "token": token}).fetchone() is None:
            return False
        durations, results = f'{{"{job}":{duration}}}', "{}" if result is None else f'{{"{job}":{result}}}'
        stored = escape_unstorable(database, results)
        parameters = {"ids": integer_array([job]), "token": token, "durations": durations, "results": stored}
        return cursor.execute(self._sql["acknowledge"], parameters).fetchone() is not None

    def end_session(self, database: Database, pid: int, role: str) -> None:
        """End a session of the server by its process, if it is the one that plays this role."""
        self._ids(database, "end_session", {"pid": pid, "role": role})

    def release(self, database: Database, token: int, ids: Iterable[int]) -> list[int]:
        """Hand jobs back unstarted: uncounted, in their old place."""
        return self._ids(database, "release", {"ids": integer_array(ids), "token": token})

    def retry(self, database: Database, token: int, job: int, *, delay: float, error: str) -> list[int]:
        """Schedule the next attempt."""
        return self._ids(
            database, "retry", {"id": job, "token": token, "delay": delay, "error": escape_unstorable(database, error)}
        )

    def snooze(
        self, database: Database, token: int, job: int, *, delay: float, unknown_task: bool = False
    ) -> list[int]:
        """Put a job off and give its attempt back."""
        return self._ids(database, "snooze", {"id": job, "token": token, "delay": delay, "bounced": int(unknown_task)})

    def fail(self, database: Database, token: int, job: int, *, error: str, hook: bool, crashes: int = 0) -> list[int]:
        """Fail a job for good, counting so many more crashes, and enqueue its failure hook."""
        error = escape_unstorable(database, error)
        parameters = {"id": job, "token": token, "error": error, "hook": hook, "crashes": crashes}
        return self._ids(database, "fail", parameters)

    def give_up(self, database: Database, token: int, job: int, error: str) -> list[int]:
        """Fail a job whose end the database refuses, with nothing but an error and without its failure hook."""
        return self._ids(database, "give_up", {"id": job, "token": token, "error": error})

    def end(
        self, database: Database, token: int, job: int, *, state: str, error: str | None, duration: float
    ) -> list[int]:
        """End a job as "cancelled" or "discarded"."""
        error = None if error is None else escape_unstorable(database, error)
        parameters = {"id": job, "token": token, "state": state, "error": error, "duration": duration}
        return self._ids(database, "end", parameters)

    def progress(self, database: Database, token: int, job: int, progress: str) -> list[int]:
        """Write how far a running job is."""
        return self._ids(
            database, "progress", {"id": job, "token": token, "progress": escape_unstorable(database, progress)}
        )

    def still_claimed(self, database: Database, token: int, ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that still carry the token."""
        return set(self._ids(database, "still_claimed", {"ids": integer_array(ids), "token": token}))

    def already_archived(self, database: Database, token: int, ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that have ended under the token."""
        return set(self._ids(database, "already_archived", {"ids": integer_array(ids), "token": token}))

    def _ids(self, database: Database, name: str, parameters: Mapping[str, Any]) -> list[int]:
        return [row[0] for row in database.execute(self._sql[name], parameters)]
