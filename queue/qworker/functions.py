"""Enqueues jobs by an SQL function: for roles without privileges on the tables, and for drivers other than psycopg."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import class_row, tuple_row

from qworker.copy_lines import CopyLines
from qworker.db.adapters import json_in
from qworker.db.drivers import Caller, DriverConnection
from qworker.db.drivers import rows as fetch
from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec
from qworker.unique import refuse_one_key

#: Maximum number of jobs, and of characters in their arguments, in one call.
MAX_JOBS, MAX_CHARACTERS = 500, 1 << 20


class Stored(NamedTuple):
    """What the function returns of a job."""

    id: int
    state: str
    #: Seconds since 1970.
    enqueued_at: float | None
    run_at: float | None
    #: Whether another job holds the key, and this is that job.
    is_holder: bool


class Functions:
    """The SQL function of one schema; decides which connections need it."""

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        self._sql = load("functions", schema)
        self._needed: WeakKeyDictionary[Caller, bool] = WeakKeyDictionary()
        #: Keyed by user, host, port and database, because a web process may open a connection for each request.
        self._roles: dict[tuple[str, str, int, str], bool] = {}

    def needed(self, conn: Caller) -> bool:
        """Return whether the connection's role may call the function but may not INSERT, or its driver is not psycopg.

        A process queries this once for each role and database. It does not notice privileges that are granted later.
        """
        needed = self._needed.get(conn)
        if needed is None:
            if isinstance(conn, DriverConnection):
                return True
            role = conn.info.user, conn.info.host, conn.info.port, conn.info.dbname
            needed = self._roles.get(role)
            if needed is None:
                needed = self._roles[role] = self._query_needed(conn)
            self._needed[conn] = needed
        return needed

    def _query_needed(self, conn: psycopg.Connection[Any]) -> bool:
        row = psycopg.Cursor(conn, row_factory=tuple_row).execute(self._sql["needed"], prepare=False).fetchone()
        return row == (True,)

    def may_read(self, conn: Caller) -> bool:
        """Return whether the connection's role may read jobs."""
        return fetch(conn, self._sql["may_read"]) == [(True,)]

    def one(self, conn: Caller, spec: JobSpec, text: str, key: str | None) -> Stored:
        """Enqueue one job, or find the one that holds the key."""
        (stored,) = self._call(conn, spec, [text], key)
        return stored

    async def aone(self, conn: psycopg.AsyncConnection[Any], spec: JobSpec, text: str, key: str | None) -> Stored:
        """Do the same as `one` on an asynchronous connection."""
        cursor = psycopg.AsyncCursor(conn, row_factory=class_row(Stored))
        await cursor.execute(self._sql["enqueue"], {**spec.parameters, "args": [text], "key": key})
        (stored,) = await cursor.fetchall()
        return stored

    def many(self, conn: Caller, spec: JobSpec, parameters: Parameters, rows: Iterable[Row]) -> list[int]:
        """Enqueue a job for each row, all or none; return the ids of those that are new."""
        ids: list[int] = []
        refuse_one_key(spec)
        source, lines, read = iter(rows), CopyLines(spec, parameters, 0.0), 0
        with conn.transaction():
            while block := list(islice(source, MAX_JOBS)):
                for texts in _parts(json_in(conn, lines.decode_args(line)) for line in lines.encode(block, read)):
                    # The function takes one key, and so one job with a key, in a call.
                    calls = [[text] for text in texts] if spec.unique else [texts]
                    for call in calls:
                        key = spec.key_of(json.loads(call[0])) if spec.unique else None
                        ids += [stored.id for stored in self._call(conn, spec, call, key) if not stored.is_holder]
                read += len(block)
        return ids

    def _call(self, conn: Caller, spec: JobSpec, texts: Sequence[str], key: str | None) -> list[Stored]:
        found = fetch(conn, self._sql["enqueue"], {**spec.parameters, "args": list(texts), "key": key})
        return [Stored(**row._asdict()) for row in found]


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Split a block into calls of limited size, after all of its rows have been encoded."""
    part: list[str] = []
    size = 0
    for text in list(texts):
        if part and size + len(text) > MAX_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part
