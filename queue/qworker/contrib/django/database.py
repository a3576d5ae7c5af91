"""The application's database is one of Django's: its connection string, and the connection of the current thread."""

import asyncio
import os
import re
import select
from typing import Any

import psycopg
from django.db import connections
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from qworker.ambient import Ambient
from qworker.db.adapters import Connection, below_django
from qworker.db.pool import Pool
from qworker.errors import ConfigurationError

#: The parameters of libpq; Django's OPTIONS contain others.
_LIBPQ = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def dsn(alias: str) -> str:
    """Return the connection string of one of Django's databases, with its OPTIONS.

    It is computed for each connection: tests change the name of the database, and an engine may renew passwords.
    """
    if alias not in connections:
        known = ", ".join(sorted(map(str, connections)))
        raise ConfigurationError(f"DATABASES has no alias {alias!r}; it has {known}")
    wrapper = connections[alias]
    if wrapper.vendor != "postgresql":
        raise ConfigurationError(f"DATABASES[{alias!r}] is {wrapper.vendor}; jobs need PostgreSQL")
    found = wrapper.get_connection_params()
    if role := wrapper.settings_dict["OPTIONS"].get("assume_role"):
        found["options"] = with_role(found.get("options") or os.environ.get("PGOPTIONS", ""), role)
    return make_conninfo("", **{name: value for name, value in found.items() if name in _LIBPQ and value is not None})


def with_role(options: str, role: str) -> str:
    """Return libpq's options with a role, which each connection takes as Django's takes its "assume_role".

    RESET ROLE returns to it. The server splits options at white space, and reads the role's name as it is.
    """
    escaped = re.sub(r"([\\\s])", r"\\\1", role)
    return f"{options} -c role={escaped}".lstrip()


class ThriftyPool(Pool):
    """A pool that keeps no unused connection outside of workers: most statements use Django's connection.

    One that stayed open would keep a test runner from dropping its database.
    """

    #: Whether unused connections are kept, as in a worker.
    keeps = False

    def putconn(self, conn: Connection, *, read_only: bool = False) -> None:
        """Return a connection to the pool, and close it unless this is a worker."""
        super().putconn(conn, read_only=read_only)
        if not self.keeps:
            self.close()


class DjangoAmbient(Ambient):
    """Uses Django's connection of the current thread, inside its transactions and outside of them.

    A worker uses connections of its own outside of transactions, because Django may close its connections after each
    job.
    """

    #: Whether Django's connection is also used outside of its transactions.
    shares = True

    def __init__(self, pool: Pool, alias: str) -> None:
        super().__init__(pool)
        self._alias = alias

    def default(self) -> Connection | None:
        """Return Django's connection, if it may be used here and is in no transaction."""
        if not self.shares or _in_event_loop():
            return None
        wrapper = connections[self._alias]
        return None if _in_transaction(wrapper) else _usable(wrapper)

    def _django(self, *, must_join: bool) -> Connection | None:
        wrapper = connections[self._alias]
        if _in_transaction(wrapper):
            if must_join or isinstance(wrapper.connection, psycopg.Connection):
                return below_django(wrapper)
            return None
        return self.default()


def _in_transaction(wrapper: Any) -> bool:
    """Return whether statements on a database belong to a transaction of the caller."""
    if wrapper.connection is None:  # `autocommit` is known when it is connected
        return bool(wrapper.in_atomic_block) or not wrapper.settings_dict["AUTOCOMMIT"]
    return bool(wrapper.in_atomic_block) or not wrapper.autocommit


def _usable(wrapper: Any) -> Connection | None:
    """Return the connection of a database for one statement that is committed at once; None: use another one."""
    conn = wrapper.connection
    if conn is not None and _is_stale(conn):
        wrapper.close()
    wrapper.ensure_connection()
    conn = wrapper.connection
    if not isinstance(conn, psycopg.Connection) or conn.pgconn.transaction_status != TransactionStatus.IDLE:
        return None
    return conn


def _is_stale(conn: Any) -> bool:
    """Return whether the server has closed an idle connection; this takes a system call, no round trip."""
    if not isinstance(conn, psycopg.Connection):
        return False
    if conn.closed:
        return True
    if conn.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _in_event_loop() -> bool:
    """Return whether this thread runs an event loop, in which Django refuses the use of its connections."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
