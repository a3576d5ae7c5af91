"""One slice of an operation: changes jobs, except those that are locked or that the database refuses to change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg

from qworker.db.statements import Database

#: Characters of the error that is kept.
MAX_ERROR = 1_000
#: Time after which no further statement of a slice is begun (seconds).
TIME_LIMIT = 2.0
#: If a statement takes too long, it is tried with this part of its jobs.
SLOWER = 16


@dataclass(frozen=True, slots=True)
class ActionStatement:
    """The statement of an action, without the ids of the jobs."""

    text: Any
    parameters: Mapping[str, Any]

    def execute(self, conn: Database, ids: Sequence[int]) -> int:
        """Change jobs in a savepoint; return their number."""
        with conn.transaction():
            return len(conn.execute(self.text, {**self.parameters, "ids": list(ids)}).fetchall())


class Slice:
    """Changes the jobs of one slice, except those that the database refuses to change."""

    def __init__(self, conn: Database, statement: ActionStatement, lockable: Any) -> None:
        self._conn = conn
        self._statement = statement
        self._lockable = lockable
        self._until = monotonic() + TIME_LIMIT
        self.done = self.failed = 0
        self.error: str | None = None
        #: The jobs that are left for the next slice because time was up, and whether a statement took too long.
        self.rest: list[int] = []
        self.slow = False

    def change(self, ids: Sequence[int], *, locks: bool) -> None:
        """Change jobs, except those that other sessions have locked, for which the statement would wait.

        The newest come first, so that those that are left are the oldest.
        """
        if locks:
            ids = [row[0] for row in self._conn.execute(self._lockable, {"ids": list(ids)}).fetchall()]
        self._change(sorted(ids, reverse=True))

    def _change(self, ids: Sequence[int]) -> None:
        """Change jobs; if the database refuses, find the job that is the cause, by halves.

        If the statement takes too long, only a small part of the jobs is tried: a trigger may be slow for each row, and
        the scheduler, which waits for it, has to renew the lease of its node.
        """
        if not ids:
            return
        if self.rest or ((self.done or self.failed) and monotonic() > self._until):
            self.rest += ids
            return
        try:
            self.done += self._statement.execute(self._conn, ids)
        except psycopg.Error as error:
            if self._conn.closed or not _may_concern_some(error):
                raise
            if isinstance(error, psycopg.errors.QueryCanceled) and len(ids) > 1:
                self.slow = True
                few = max(1, len(ids) // SLOWER)
                self._change(ids[:few])
                self.rest += ids[few:]
                return
            if len(ids) > 1:
                self._change(ids[: len(ids) // 2])
                self._change(ids[len(ids) // 2 :])
                return
            self.failed += 1
            self.error = f"job {ids[0]}: {error.diag.message_primary or error}"[:MAX_ERROR]


def _may_concern_some(error: psycopg.Error) -> bool:
    """Return whether a statement may succeed for other jobs: a trigger has refused it, or it took too long."""
    if isinstance(error, psycopg.OperationalError):
        return isinstance(error, psycopg.errors.QueryCanceled)
    return not isinstance(error, psycopg.errors.InsufficientPrivilege)
