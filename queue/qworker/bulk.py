"""Many jobs of one task at once, by COPY: all of them or none."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from math import inf
from typing import Any, LiteralString

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row

from qworker.copy_lines import CopyLines
from qworker.db.adapters import Connection
from qworker.db.deadline import answer_timeout_set
from qworker.db.errors import suppressed
from qworker.errors import InvalidOperation
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec

#: Rows that are taken from the source before a COPY, and lines that are handed to the driver together, at most.
MAX_BLOCK_ROWS, MAX_WRITE_LINES = 20_000, 500
#: The same in bytes: as many rows or lines as the ones before say will fit.
MAX_BLOCK_BYTES, MAX_WRITE_BYTES = 4_000_000, 1_000_000
#: How many are taken while nothing is known of their length.
FIRST_ROWS = 10


class BulkTransaction:
    """A transaction that jobs are written in."""

    __slots__ = ("count", "cursor", "lines", "size")

    def __init__(self, cursor: psycopg.Cursor[Any], lines: CopyLines) -> None:
        self.cursor = cursor
        self.lines = lines
        #: How many jobs were written, and how many bytes these were.
        self.count = self.size = 0

    def statement(self, *, ids: bool = False) -> str:
        """Return the name of the COPY that takes the lines; with ids, each begins with one."""
        return "copy" + ("_options" if self.lines.optional else "") + ("_ids" if ids else "")


class _Abandoned(Exception):
    """Ends a COPY. The driver sends the exception's text to the server, which hangs up at more than 10,000 bytes."""


class Bulk:
    """Writes jobs that differ in their arguments alone; memory does not grow with their number.

    A row that cannot be a job ends the whole with an error that names its index, and nothing is written; the caller's
    transaction goes on as it was. The source may use the caller's connection: it is asked between two COPYs.
    """

    def __init__(self, spec: JobSpec, parameters: Parameters, sql: Mapping[str, LiteralString]) -> None:
        if spec.unique:
            raise TypeError("enqueue_many takes no unique key: enqueue such jobs one by one")
        self._spec = spec
        self._parameters = parameters
        self._sql = sql

    def count(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> int:
        """Make a job of each row and return their number; own: the connection is ours, and so is the commit."""
        with self._begin(conn, rows, own=own) as work:
            if own:
                # Nobody else has our connection, so that one COPY may wait for the source: the server writes meanwhile.
                self._copy(work, work.statement(), work.lines.encode(rows))
            else:
                for block in _blocks(rows, work):
                    self._write(work, work.statement(), block)
        return work.count

    def ids(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> list[int]:
        """Make a job of each row and return their ids, drawn before the jobs are written; own: as with `count`."""
        ids: list[int] = []
        with self._begin(conn, rows, own=own) as work:
            for block in _blocks(rows, work):
                reserved = [row[0] for row in work.cursor.execute(self._sql["reserve"], {"count": len(block)})]
                self._write(work, work.statement(ids=True), block, reserved)
                ids += reserved
        return ids

    def _begin(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> AbstractContextManager[BulkTransaction]:
        """Return a transaction to work in; in its end nodes that sleep are woken."""
        if conn.pgconn.pipeline_status != PipelineStatus.OFF:
            raise InvalidOperation(
                "enqueue_many cannot run inside a pipeline (libpq has no COPY there): call it before or after"
            )
        return self._own_transaction(conn) if own else self._savepoint(conn, rows)

    @contextmanager
    def _savepoint(self, conn: Connection, rows: Iterable[Row]) -> Iterator[BulkTransaction]:
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        # Begins the caller's transaction if it has to; what follows is then a savepoint, and does not commit.
        ((now,),) = cursor.execute(self._sql["clock"], {"at": None})
        with conn.transaction():
            work = self._transaction(cursor, now)
            try:
                yield work
            except BaseException:
                if isinstance(rows, Generator):
                    rows.close()  # it may have a savepoint of its own, which has to end before ours
                raise
            if self._needs_wakeup(work):
                cursor.execute(self._sql["wake"], {"queue": self._spec.queue})

    @contextmanager
    def _own_transaction(self, conn: Connection) -> Iterator[BulkTransaction]:
        # One message to begin with and one to end with: round trips are what a small bulk mostly costs.
        around = psycopg.ClientCursor(conn, row_factory=tuple_row)
        try:
            with answer_timeout_set(conn, inf):  # the server was told the same
                around.execute(self._sql["begin"]).nextset()
                ((now, *_),) = around
                work = self._transaction(psycopg.Cursor(conn, row_factory=tuple_row), now)
                yield work
                if self._needs_wakeup(work):
                    around.execute(self._sql["wake_and_commit"], {"queue": self._spec.queue})
                else:
                    around.execute(self._sql["commit"])
        except BaseException:  # whatever ends it, an interrupt too, leaves nothing behind
            with suppress(psycopg.Error):  # a connection that is gone has nothing to roll back
                conn.rollback()
            raise

    def _transaction(self, cursor: psycopg.Cursor[Any], now: float) -> BulkTransaction:
        return BulkTransaction(cursor, CopyLines(self._spec, self._parameters, now))

    def _write(self, work: BulkTransaction, statement: str, block: Sequence[Row], ids: Sequence[int] = ()) -> None:
        """Write a block of rows; what may call the caller's code is not done while the connection is in COPY."""
        first = work.count
        self._copy(work, statement, _with_ids(ids, work.lines.encode_plain(block)))
        done = work.count - first
        if done < len(block):
            rest = list(work.lines.encode(block[done:], first + done))
            self._copy(work, statement, _with_ids(ids[done:], iter(rest)))

    def _copy(self, work: BulkTransaction, statement: str, lines: Iterator[str]) -> None:
        count, wanted = 0, FIRST_ROWS
        failure: BaseException | None = None
        with suppress(_Abandoned), work.cursor.copy(self._sql[statement]) as copy:
            try:
                while batch := list(islice(lines, wanted)):
                    text = "".join(batch).encode()
                    copy.write(text)
                    count += len(batch)
                    work.size += len(text)
                    wanted = _rows_that_fit(len(batch), len(text), MAX_WRITE_BYTES, MAX_WRITE_LINES)
            except BaseException as error:  # noqa: BLE001 - raised again when the COPY is over
                failure = error
                raise _Abandoned from None
        if failure is not None:
            raise failure
        if work.cursor.rowcount != count:
            raise suppressed(self._spec.task, count - work.cursor.rowcount)
        work.count += count

    def _needs_wakeup(self, work: BulkTransaction) -> bool:
        """Tell whether there is something to do at once."""
        return work.count > 0 and work.lines.start is None


def _blocks(rows: Iterable[Row], work: BulkTransaction) -> Iterator[list[Row]]:
    source, wanted = iter(rows), FIRST_ROWS
    while block := list(islice(source, wanted)):
        yield block
        wanted = _rows_that_fit(work.count, work.size, MAX_BLOCK_BYTES, MAX_BLOCK_ROWS)


def _with_ids(ids: Sequence[int], lines: Iterable[str]) -> Iterator[str]:
    return (f"{id_}\t{line}" for id_, line in zip(ids, lines, strict=False)) if ids else iter(lines)


def _rows_that_fit(count: int, size: int, max_bytes: int, max_rows: int) -> int:
    """Return how many go into a room (bytes), judging by the size of as many as `count`."""
    return min(max_rows, max(1, count * max_bytes // size))
