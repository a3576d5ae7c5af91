"""Enqueues many jobs of one task by COPY, all of them or none."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from math import inf
from typing import Any, LiteralString

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row

from qworker import clock
from qworker.copy_lines import CopyLines
from qworker.db.adapters import Connection
from qworker.db.deadline import answer_timeout_set
from qworker.db.errors import suppressed
from qworker.errors import InvalidOperation
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec

#: Maximum number of rows read from the iterable before a COPY, and of lines passed to psycopg together.
MAX_BLOCK_ROWS, MAX_WRITE_LINES = 20_000, 500
#: The same limits in bytes; how many rows fit is estimated from the size of those written before.
MAX_BLOCK_BYTES, MAX_WRITE_BYTES = 4_000_000, 1_000_000
#: Number of rows read first, while their size is unknown.
FIRST_ROWS = 10


class BulkTransaction:
    """A transaction or savepoint that writes jobs."""

    __slots__ = ("count", "cursor", "lines", "size")

    def __init__(self, cursor: psycopg.Cursor[Any], lines: CopyLines) -> None:
        self.cursor = cursor
        self.lines = lines
        #: The number of jobs written and their size in bytes.
        self.count = self.size = 0

    def statement(self, *, ids: bool = False) -> str:
        """Return the name of the COPY statement for these lines; ids: each line begins with an id."""
        return "copy" + ("_options" if self.lines.optional else "") + ("_ids" if ids else "")


class _Abandoned(Exception):
    """Ends a COPY. psycopg sends the exception's text to the server, which disconnects if it exceeds 10,000 bytes."""


class Bulk:
    """Writes jobs that differ only in their arguments; memory use does not depend on their number.

    If a row is invalid, an error names its index and nothing is written; the caller's transaction remains usable. The
    iterable may use the caller's connection: rows are read between two COPYs.
    """

    def __init__(self, spec: JobSpec, parameters: Parameters, sql: Mapping[str, LiteralString]) -> None:
        #: What is stored with each job besides its arguments; the statements.
        self.spec = spec
        self.sql = sql
        self._parameters = parameters

    def count(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> int:
        """Enqueue a job for each row and return their number; own: the connection is from the pool, commit on it."""
        with self.begin(conn, rows, own=own) as work:
            if own:
                # No other code uses this connection, so one COPY can stay open while rows are read.
                self._copy(work, work.statement(), work.lines.encode(rows))
            else:
                for block in _blocks(rows, work):
                    self._write(work, work.statement(), block)
        return work.count

    def ids(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> list[int]:
        """Enqueue a job for each row and return their ids, reserved before the jobs are written; own: see `count`."""
        ids: list[int] = []
        with self.begin(conn, rows, own=own) as work:
            for block in _blocks(rows, work):
                reserved = [number for (number,) in work.cursor.execute(self.sql["reserve"], {"count": len(block)})]
                self._write(work, work.statement(ids=True), block, reserved)
                ids += reserved
        return ids

    def begin(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> AbstractContextManager[BulkTransaction]:
        """Return a context manager for the transaction; at its end it wakes idle nodes."""
        if conn.pgconn.pipeline_status != PipelineStatus.OFF:
            raise InvalidOperation(
                "enqueue_many cannot run inside a pipeline, where libpq does not support COPY: call it before or after"
            )
        return self._own_transaction(conn) if own else self._savepoint(conn, rows)

    @contextmanager
    def _savepoint(self, conn: Connection, rows: Iterable[Row]) -> Iterator[BulkTransaction]:
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        # Begins the caller's transaction if necessary; transaction() below is then a savepoint and does not commit.
        ((now,),) = cursor.execute(self.sql["clock"], {"at": clock.at()})
        with conn.transaction():
            work = self._transaction(cursor, now)
            try:
                yield work
            except BaseException:
                if isinstance(rows, Generator):
                    rows.close()  # it may be inside a savepoint that must end before this one
                raise
            if self._needs_wakeup(work):
                cursor.execute(self.sql["wake"], {"queue": self.spec.queue})

    @contextmanager
    def _own_transaction(self, conn: Connection) -> Iterator[BulkTransaction]:
        # BEGIN and COMMIT share a message with other statements: round trips dominate the cost of a small bulk.
        around = psycopg.ClientCursor(conn, row_factory=tuple_row)
        try:
            with answer_timeout_set(conn, inf):  # the statement "begin" disables the server's timeouts too
                around.execute(self.sql["begin"]).nextset()
                ((now, *_),) = around
                now = clock.at() or now
                work = self._transaction(psycopg.Cursor(conn, row_factory=tuple_row), now)
                yield work
                if self._needs_wakeup(work):
                    around.execute(self.sql["wake_and_commit"], {"queue": self.spec.queue})
                else:
                    around.execute(self.sql["commit"])
        except BaseException:  # interrupts must roll back too
            with suppress(psycopg.Error):  # a broken connection has nothing to roll back
                conn.rollback()
            raise

    def _transaction(self, cursor: psycopg.Cursor[Any], now: float) -> BulkTransaction:
        return BulkTransaction(cursor, CopyLines(self.spec, self._parameters, now))

    def _write(self, work: BulkTransaction, statement: str, block: Sequence[Row], ids: Sequence[int] = ()) -> None:
        """Write a block of rows without calling the caller's code while the connection is in COPY mode."""
        first = work.count
        self._copy(work, statement, _with_ids(ids, work.lines.encode_plain(block)))
        done = work.count - first
        if done < len(block):
            rest = list(work.lines.encode(block[done:], first + done))
            self._copy(work, statement, _with_ids(ids[done:], iter(rest)))

    def _copy(self, work: BulkTransaction, statement: str, lines: Iterator[str]) -> None:
        count, wanted = 0, FIRST_ROWS
        failure: BaseException | None = None
        with suppress(_Abandoned), work.cursor.copy(self.sql[statement]) as copy:
            try:
                while batch := list(islice(lines, wanted)):
                    text = "".join(batch).encode()
                    copy.write(text)
                    count += len(batch)
                    work.size += len(text)
                    wanted = _rows_that_fit(len(batch), len(text), MAX_WRITE_BYTES, MAX_WRITE_LINES)
            except BaseException as error:  # noqa: BLE001 - raised again after the COPY
                failure = error
                raise _Abandoned from None
        if failure is not None:
            raise failure
        if work.cursor.rowcount != count:
            raise suppressed(self.spec.task, count - work.cursor.rowcount)
        work.count += count

    def _needs_wakeup(self, work: BulkTransaction) -> bool:
        """Return whether jobs are available at once."""
        return work.count > 0 and work.lines.start is None


def _blocks(rows: Iterable[Row], work: BulkTransaction) -> Iterator[list[Row]]:
    source, wanted = iter(rows), FIRST_ROWS
    while block := list(islice(source, wanted)):
        yield block
        wanted = _rows_that_fit(work.count, work.size, MAX_BLOCK_BYTES, MAX_BLOCK_ROWS)


def _with_ids(ids: Sequence[int], lines: Iterable[str]) -> Iterator[str]:
    return (f"{id_}\t{line}" for id_, line in zip(ids, lines, strict=False)) if ids else iter(lines)


def _rows_that_fit(count: int, size: int, max_bytes: int, max_rows: int) -> int:
    """Return how many rows fit into max_bytes, given that `count` rows took `size` bytes."""
    return min(max_rows, max(1, count * max_bytes // size))
