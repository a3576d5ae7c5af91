"""Enqueues jobs on the caller's connection if there is one, or else on one from the application's pool."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from qworker import clock
from qworker.admin import Admin
from qworker.ambient import Ambient
from qworker.bulk import Bulk
from qworker.db.adapters import Connection, json_in, unwrap_async
from qworker.db.drivers import Caller, in_transaction
from qworker.db.errors import suppressed, translate
from qworker.db.pool import Pool
from qworker.db.prepared import PreparedStatement
from qworker.db.sessions import reference
from qworker.db.statements import load
from qworker.errors import QworkerError
from qworker.functions import Functions, Stored
from qworker.job import Job, JobState, new_job, to_datetime
from qworker.options import UNSET
from qworker.payload import Parameters, encode
from qworker.payload import Row as Arguments
from qworker.spec import JobSpec
from qworker.unique import UniqueBulk

#: Id, state (None if another job holds the key), enqueued_at and run_at in seconds since 1970.
Row = tuple[int, str | None, float | None, float | None]

#: In binary format a timestamptz is the number of microseconds since 2000-01-01.
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

#: Arguments of these types do not change when they are stored as JSON and read again.
_SCALARS = frozenset({str, int, float, bool, type(None)})

#: Attempts to take a unique key while concurrent sessions keep taking and freeing it.
UNIQUE_ATTEMPTS = 20


class Enqueuer:
    """Enqueues jobs in one schema."""

    def __init__(self, pool: Pool, admin: Admin, ambient: Ambient) -> None:
        self._pool = pool
        #: Reads the jobs of the same schema.
        self.admin = admin
        self._ambient = ambient
        self._sql = load("enqueue", pool.schema)
        self._prepared = PreparedStatement(self._sql["prepared"])
        self._functions = Functions(pool.schema)

    def one(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Enqueue one job in one round trip and wake an idle node.

        If the unique key is taken, no job is stored; the job that holds the key is returned as a duplicate.
        """
        text = encode(args)
        caller = self._ambient.caller(conn)
        with self._pool.connection(caller) as database:
            if self._functions.needed(database):
                return self._enqueue_by_function(database, spec, args, text, caller)
            job_id, state, enqueued_at, run_at = (
                caller is None and self._enqueue_prepared(database, spec, text)
            ) or self._enqueue_any(database, spec, args, text)
            if state is None:
                return self.admin.holder(database, job_id, spec)
            return self._new_job(spec, args, text, (job_id, state, enqueued_at, run_at), caller)

    async def aone(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Enqueue one job without blocking the event loop: on an asynchronous connection, or else in a thread."""
        import asyncio

        database = await unwrap_async(conn)
        if database is None:
            return await asyncio.to_thread(self.one, spec, args, conn)
        text = encode(args)
        try:
            if getattr(database, "_tpc", None) is not None:
                await psycopg.AsyncCursor(database).execute(self._sql["without_wakeup"])
            stored = await self._functions.aone(database, spec, json_in(database, text), spec.key_of(args))
        except psycopg.Error as error:
            if found := translate(error, database, self._pool.schema, own=False):
                raise found from (error if isinstance(found, QworkerError) else None)
            raise
        return self._stored_job(spec, args, text, stored, None)

    def _enqueue_by_function(
        self, database: Caller, spec: JobSpec, args: Mapping[str, Any], text: str, caller: Caller | None
    ) -> Job:
        """Enqueue a job through the SQL function. A role that may not read jobs gets id and state of a key's holder."""
        stored = self._functions.one(database, spec, json_in(database, text), spec.key_of(args))
        if stored.is_holder and self._functions.may_read(database):
            return self.admin.holder(database, stored.id, spec)
        return self._stored_job(spec, args, text, stored, caller)

    def _stored_job(
        self, spec: JobSpec, args: Mapping[str, Any], text: str, stored: Stored, caller: Caller | None
    ) -> Job:
        """Return the job that the SQL function has stored, or what it returns of the one that holds the key."""
        if stored.is_holder:
            return self.admin.unseen_holder(stored.id, stored.state, spec)
        row = stored.id, stored.state, stored.enqueued_at, stored.run_at
        return self._new_job(spec, args, text, row, caller)

    def _new_job(self, spec: JobSpec, args: Mapping[str, Any], text: str, row: Row, caller: Caller | None) -> Job:
        job_id, state, enqueued_at, run_at = row
        pending = caller is not None and in_transaction(caller)
        return new_job(
            id=job_id,
            state=JobState(state or JobState.AVAILABLE),
            queue=spec.queue,
            priority=spec.priority,
            task=spec.task,
            args=dict(args) if _SCALARS.issuperset(map(type, args.values())) else json.loads(text),
            enqueued_at=to_datetime(enqueued_at),
            run_at=to_datetime(run_at),
            tags=spec.tags or (),
            _actions=self.admin,
            _conn=reference(caller) if pending and caller is not None else None,
        )

    def many(
        self, spec: JobSpec, parameters: Parameters, rows: Iterable[Arguments], conn: Any = UNSET, *, ids: bool = False
    ) -> int | list[int]:
        """Enqueue a job for each row, all or none; return their number or their ids.

        With unique keys, that is the number or the ids of the jobs that are new.
        """
        bulk = (UniqueBulk if spec.unique else Bulk)(spec, parameters, self._sql)
        write = bulk.ids if ids else bulk.count
        caller = self._ambient.caller(conn)
        with self._pool.connection(caller) as database:
            if self._functions.needed(database):
                stored = self._functions.many(database, spec, parameters, rows)
                return stored if ids else len(stored)
            return write(database, rows, own=caller is None)

    def _enqueue_prepared(self, database: Connection, spec: JobSpec, text: str) -> Row | None:
        """Enqueue a plain job by the prepared statement; None if it cannot be used."""
        if spec.values is None:
            return None
        row = self._prepared.send(database, (*spec.values, text.encode()))
        if row is None:
            return None
        if not row:
            raise suppressed(spec.task)
        job_id, enqueued_at, *_ = row
        return _integer(job_id), JobState.AVAILABLE, _integer(enqueued_at) / 1e6 + _POSTGRES_EPOCH, None

    def _enqueue_any(self, database: Connection, spec: JobSpec, args: Mapping[str, Any], text: str) -> Row:
        """Enqueue a job with any options by a cursor."""
        cursor = psycopg.Cursor(database, row_factory=tuple_row)
        text = json_in(database, text)
        if (key := spec.key_of(args)) is not None:
            return self._enqueue_unique(cursor, spec, text, key)
        name = "enqueue_later" if spec.timed else "enqueue_with_meta" if spec.keeps_meta else "enqueue"
        row = cursor.execute(self._sql[name], {**spec.parameters, "args": text, "at": clock.at()}).fetchone()
        if row is None:
            raise suppressed(spec.task)
        job_id, state, enqueued_at, run_at, _ = row
        return job_id, state, enqueued_at, run_at

    def _enqueue_unique(self, cursor: psycopg.Cursor[Any], spec: JobSpec, text: str, key: str) -> Row:
        parameters = {**spec.parameters, "args": text, "key": key, "at": clock.at()}
        for _ in range(UNIQUE_ATTEMPTS):
            if row := cursor.execute(self._sql["enqueue_unique"], parameters).fetchone():
                job_id, state, enqueued_at, run_at, _ = row
                if state == "":
                    cursor.execute(self._sql["free_key"], {"task": spec.task, "key": key, "id": job_id})
                    raise suppressed(spec.task)
                return job_id, state, enqueued_at, run_at
        raise QworkerError(
            f"other sessions took and freed unique={key!r} of task {spec.task!r} {UNIQUE_ATTEMPTS} times while this "
            "job was enqueued: try again"
        )


def _integer(value: bytes | None) -> int:
    return int.from_bytes(value or b"", signed=True)
