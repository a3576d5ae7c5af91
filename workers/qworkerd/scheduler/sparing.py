"""Statements that write many rows, some of which the database may refuse."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

import psycopg

from qworker.claims import WriteSuppressed
from qworkerd import log
from qworkerd.process.reconnect import may_concern_one_row

T = TypeVar("T")
Database = psycopg.Connection[tuple[Any, ...]]

#: How many rows one statement writes.
LIMIT = 1000
#: How long a row that was refused is left out (seconds).
SPARED = 60.0
#: Time after which one call stops (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 1.0


class Sparing:
    """Runs a statement of one task for many rows, and leaves out the rows that a trigger refuses."""

    def __init__(self, task: str) -> None:
        self._task = task
        #: Until when a row is left out (monotonic), by its id.
        self._refused: dict[int, float] = {}
        self._log = log.get()

    def run(
        self,
        database: Database,
        write: Callable[[int, Sequence[int]], list[T]],
        first: Callable[[Sequence[int]], int | None],
    ) -> list[T]:
        """Call `write` with a limit and the rows to leave out, and return the rows it returns.

        If it fails, it is repeated with a lower limit. If it fails for a single row, `first` returns the id of that row
        and it is left out from then on. Raises the database's error if no row can be its cause.
        """
        limit, rows, until = LIMIT, [], monotonic() + TIME_LIMIT
        while True:
            now = monotonic()
            self._refused = {job: end for job, end in self._refused.items() if end > now}
            try:
                written = write(limit, list(self._refused))
            except psycopg.Error as error:
                if database.closed or (limit == 1 and not may_concern_one_row(error)):
                    raise
                if limit == 1 and not self._spare(first(list(self._refused)), error):
                    raise
                limit = max(1, limit // 10)
            else:
                rows += written
                if not written and (job := self._suppressed(database, write, first)) is not None:
                    self._spare(job, WriteSuppressed())
                    continue
                if limit == LIMIT or len(written) < limit:
                    return rows
                limit = min(LIMIT, 10 * limit)
            if monotonic() >= until:
                return rows

    def _suppressed(
        self,
        database: Database,
        write: Callable[[int, Sequence[int]], list[T]],
        first: Callable[[Sequence[int]], int | None],
    ) -> int | None:
        """Return the row that `write` leaves as it is although no other session has locked it, if there is one."""
        with database.transaction(force_rollback=True):
            job = first(list(self._refused))
            return job if job is not None and not write(1, list(self._refused)) else None

    def _spare(self, job: int | None, error: psycopg.Error) -> bool:
        if job is None:
            return False
        self._refused[job] = monotonic() + SPARED
        self._log.error(
            "maintenance.row_refused", task=self._task, job=job, error=str(error).strip(), retry_in=SPARED,
            hint="most likely a trigger on the table of jobs; the other jobs are not affected",
        )  # fmt: skip
        return True
