"""Runs statements that write many rows, some of which the database may reject."""

from collections.abc import Sequence
from time import monotonic
from typing import Protocol, TypeVar

import psycopg

from qworker.claims import WriteSuppressed
from qworker.db.statements import Database
from qworkerd import log
from qworkerd.process.reconnect import may_concern_one_row

T = TypeVar("T")

#: Maximum number of rows that one statement writes.
MAX_ROWS = 1000
#: Time for which a rejected row is excluded (seconds).
EXCLUDE_FOR = 60.0
#: Time after which one call stops (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 1.0


class WriteRows(Protocol[T]):
    """A statement that writes up to `limit` rows."""

    def __call__(self, *, limit: int, excluded: Sequence[int]) -> list[T]:
        """Write rows; return a value for each."""


class FirstRow(Protocol):
    """A query for the row that the statement would write first."""

    def __call__(self, *, excluded: Sequence[int]) -> int | None:
        """Return the id of the row."""


class BatchedWrite:
    """Runs the statement of one task in batches of rows, and excludes the rows that a trigger rejects."""

    def __init__(self, task: str) -> None:
        self._task = task
        #: Until when a row is excluded (monotonic), by its id.
        self._excluded: dict[int, float] = {}
        self._log = log.get()

    def run(self, database: Database, write: WriteRows[T], first: FirstRow) -> list[T]:
        """Call `write` with a limit and the ids to exclude, and return the rows that it returns.

        If it fails, it is repeated with a lower limit. If it fails for a single row, `first`, which takes the ids to
        exclude, returns the id of that row, and the row is excluded. Raises the database's error if no row can be the
        cause.
        """
        limit, rows, until = MAX_ROWS, [], monotonic() + TIME_LIMIT
        while True:
            now = monotonic()
            self._excluded = {job: end for job, end in self._excluded.items() if end > now}
            try:
                written = write(limit=limit, excluded=list(self._excluded))
            except psycopg.Error as error:
                if database.closed or (limit == 1 and not may_concern_one_row(error)):
                    raise
                if limit == 1 and not self._exclude(first(excluded=list(self._excluded)), error):
                    raise
                limit = max(1, limit // 10)
            else:
                rows += written
                if not written and (job := self._suppressed(database, write, first)) is not None:
                    self._exclude(job, WriteSuppressed())
                    continue
                if limit == MAX_ROWS or len(written) < limit:
                    return rows
                limit = min(MAX_ROWS, 10 * limit)
            if monotonic() >= until:
                return rows

    def _suppressed(self, database: Database, write: WriteRows[T], first: FirstRow) -> int | None:
        """Return the id of a row that `write` does not change although no other session has locked it, or None."""
        if first(excluded=list(self._excluded)) is None:  # the usual case, which then needs no rollback
            return None
        with database.transaction(force_rollback=True):
            job = first(excluded=list(self._excluded))
            return job if job is not None and not write(limit=1, excluded=list(self._excluded)) else None

    def _exclude(self, job: int | None, error: psycopg.Error) -> bool:
        if job is None:
            return False
        self._excluded[job] = monotonic() + EXCLUDE_FOR
        self._log.error(
            "maintenance.row_refused", task=self._task, job=job, error=str(error).strip(), retry_in=EXCLUDE_FOR,
            hint="check the triggers on the table job; the other jobs are not affected",
        )  # fmt: skip
        return True
