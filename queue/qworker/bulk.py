"""Many jobs of one task at once, by COPY: all of them or none."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from math import inf
from typing import Any, LiteralString

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row

from qworker.arrays import of_texts
from qworker.caller import Connection
from qworker.errors import PayloadTooLarge, Refused
from qworker.order import Order
from qworker.patience import waiting
from qworker.payload import Parameters, Row, encode

#: Jobs whose ids are drawn together.
BLOCK = 10_000
#: Lines handed to the driver together.
BATCH = 500

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Work:
    """A transaction that jobs are written in."""

    __slots__ = ("count", "cursor", "now")

    def __init__(self, cursor: psycopg.Cursor[Any], now: float) -> None:
        self.cursor = cursor
        #: By the server's clock.
        self.now = datetime.fromtimestamp(now, UTC)
        #: How many jobs were written.
        self.count = 0


class Bulk:
    """Writes jobs that differ in their arguments alone; memory does not grow with their number.

    A row that cannot be a job ends the whole with an error that names its index, and nothing is written; the caller's
    transaction goes on as it was.
    """

    def __init__(self, order: Order, parameters: Parameters, sql: Mapping[str, LiteralString]) -> None:
        if order.unique:
            raise TypeError("enqueue_many takes no unique key: enqueue such jobs one by one")
        self._order = order
        self._parameters = parameters
        self._sql = sql

    def count(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> int:
        """Make a job of each row and return their number; own: the connection is ours, and so is the commit."""
        with self._begin(conn, own=own) as work:
            self._copy(work, "copy", self._lines(rows, work.now))
        return work.count

    def ids(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> list[int]:
        """Make a job of each row and return their ids, drawn before the jobs are written; own: as with `count`."""
        ids: list[int] = []
        with self._begin(conn, own=own) as work:
            lines = self._lines(rows, work.now)
            while block := list(islice(lines, BLOCK)):
                drawn = [row[0] for row in work.cursor.execute(self._sql["reserve"], {"count": len(block)})]
                self._copy(work, "copy_ids", (f"{id_}\t{line}" for id_, line in zip(drawn, block, strict=True)))
                ids += drawn
        return ids

    def _begin(self, conn: Connection, *, own: bool) -> AbstractContextManager[Work]:
        """Return a transaction to work in; in its end nodes that sleep are woken."""
        if conn.pgconn.pipeline_status != PipelineStatus.OFF:
            raise Refused(
                "enqueue_many cannot run inside a pipeline (libpq has no COPY there): call it before or after"
            )
        return self._own(conn) if own else self._joined(conn)

    @contextmanager
    def _joined(self, conn: Connection) -> Iterator[Work]:
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        # Begins the caller's transaction if it has to; what follows is then a savepoint, and does not commit.
        ((now,),) = cursor.execute(self._sql["clock"], {"at": None})
        with conn.transaction():
            work = Work(cursor, now)
            yield work
            if self._wakes(work):
                cursor.execute(self._sql["wake"], {"queue": self._order.queue})

    @contextmanager
    def _own(self, conn: Connection) -> Iterator[Work]:
        # One message to begin with and one to end with: round trips are what a small bulk mostly costs.
        around = psycopg.ClientCursor(conn, row_factory=tuple_row)
        try:
            with waiting(conn, inf):  # the server was told the same
                around.execute(self._sql["begin"]).nextset()
                ((now, *_),) = around
                work = Work(psycopg.Cursor(conn, row_factory=tuple_row), now)
                yield work
                if self._wakes(work):
                    around.execute(self._sql["wake_and_commit"], {"queue": self._order.queue})
                else:
                    around.execute(self._sql["commit"])
        except BaseException:  # whatever ends it, an interrupt too, leaves nothing behind
            with suppress(psycopg.Error):  # a connection that is gone has nothing to roll back
                conn.rollback()
            raise

    def _copy(self, work: Work, statement: str, lines: Iterator[str]) -> None:
        with work.cursor.copy(self._sql[statement]) as copy:
            while batch := list(islice(lines, BATCH)):
                copy.write("".join(batch))
                work.count += len(batch)

    def _wakes(self, work: Work) -> bool:
        """Tell whether there is something to do at once."""
        return work.count > 0 and self._start(work.now) is None

    def _lines(self, rows: Iterable[Row], now: datetime) -> Iterator[str]:
        bind, tail = self._parameters.bind, self._tail(now)
        for at, row in enumerate(rows):
            try:
                if isinstance(row, tuple | list):
                    text = encode(bind(row, {}))
                elif isinstance(row, Mapping):
                    text = encode(bind((), row))
                else:
                    raise TypeError(f"a job's arguments are a tuple, a list or a dict, not {row!r}")  # noqa: TRY301
            except (TypeError, ValueError) as error:
                kind = next(kind for kind in (PayloadTooLarge, TypeError, ValueError) if isinstance(error, kind))
                raise kind(f"row {at}: {error}") from None
            # JSON escapes every other character that COPY minds.
            yield text.replace("\\", "\\\\") + tail

    def _tail(self, now: datetime) -> str:
        order, start = self._order, self._start(now)
        expires = now + timedelta(seconds=order.expires) if isinstance(order.expires, float) else order.expires
        fields = (
            order.task,
            order.queue,
            str(order.priority),
            "scheduled" if start else "available",
            start.isoformat() if start else None,
            expires.isoformat() if expires else None,
            order.overrides,
            None if order.tags is None else of_texts(order.tags),
        )
        return "".join("\t" + ("\\N" if field is None else field.translate(_ESCAPES)) for field in fields) + "\n"

    def _start(self, now: datetime) -> datetime | None:
        order = self._order
        start = order.run_at if order.delay is None else now + timedelta(seconds=order.delay)
        return start if start and start > now else None
