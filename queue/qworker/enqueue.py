"""Puts jobs into the database: on the caller's connection if there is one, else on the application's own."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from qworker.admin import Admin
from qworker.bulk import Bulk
from qworker.caller import Connection, ambient, unwrap
from qworker.errors import QworkerError
from qworker.job import Job, JobState, moment
from qworker.migrations import translated
from qworker.options import UNSET
from qworker.order import Order
from qworker.payload import Parameters, Row, encode
from qworker.pool import Pool
from qworker.statements import load

#: How often enqueueing looks again when others keep taking and giving back its unique key at that very moment.
LOOKS = 20


class Enqueuer:
    """Makes jobs in one schema."""

    def __init__(self, pool: Pool, schema: str, admin: Admin) -> None:
        self._pool = pool
        self._schema = schema
        self._admin = admin

    def one(self, order: Order, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Make one job in one round trip; it wakes a node that sleeps.

        A job whose unique key is taken is not made: the holder of the key is returned, as a duplicate.
        """
        text = encode(args)
        parameters = order.parameters() | {"args": text}
        with self.lend(conn) as (database, foreign):
            cursor = psycopg.Cursor(database, row_factory=tuple_row)
            if order.unique:
                key = _fingerprint(args) if order.unique is True else order.unique
                found = self._unique(cursor, parameters | {"key": key})
            else:
                statement = load("enqueue", self._schema)["enqueue_later" if order.timed else "enqueue"]
                found = cursor.execute(statement, parameters).fetchone() or ()
            job_id, state, enqueued_at, run_at, _ = found
            if state is None:
                return self._admin.holder(database, job_id, order)
            pending = foreign and database.info.transaction_status is not TransactionStatus.IDLE
        return Job(
            id=job_id,
            state=JobState(state),
            queue=order.queue,
            priority=order.priority,
            task=order.task,
            args=json.loads(text),
            enqueued_at=moment(enqueued_at),
            run_at=moment(run_at),
            tags=order.tags or (),
            _desk=self._admin,
            _conn=database if pending else None,
        )

    def many(
        self, order: Order, parameters: Parameters, rows: Iterable[Row], conn: Any = UNSET, *, ids: bool = False
    ) -> int | list[int]:
        """Make a job of each row, all or none; return their number or their ids."""
        bulk = Bulk(order, parameters, self._schema)
        write = bulk.ids if ids else bulk.count
        with self.lend(conn) as (database, foreign):
            return write(database, rows, own=not foreign)

    @contextmanager
    def lend(self, conn: Any) -> Iterator[tuple[Connection, bool]]:
        """Yield the connection to write on, and whether it is the caller's; a missing schema becomes a SchemaError."""
        if conn is UNSET:
            conn = ambient(self._pool.dsn)
        if conn is None:
            with self._pool.connection() as own, translated(own, self._schema):
                yield own, False
        else:
            caller = unwrap(conn)
            with translated(caller, self._schema):
                yield caller, True

    def _unique(self, cursor: psycopg.Cursor[Any], parameters: dict[str, Any]) -> tuple[Any, ...]:
        statement = load("enqueue", self._schema)["enqueue_unique"]
        for _ in range(LOOKS):
            if row := cursor.execute(statement, parameters).fetchone():
                return tuple(row)
        raise QworkerError(
            f"unique={parameters['key']!r} of task {parameters['task']!r} changed hands {LOOKS} times while this job "
            "was enqueued: try again"
        )


def _fingerprint(args: Mapping[str, Any]) -> str:
    text = json.dumps(args, sort_keys=True, separators=(",", ":"))
    return "args:" + hashlib.sha256(text.encode()).hexdigest()
