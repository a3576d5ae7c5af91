"""Finds the ambient transaction: the one that is open where a job is enqueued, and that the job is to join."""

import os
import sys
import warnings
from collections.abc import Callable
from time import monotonic
from typing import Any, LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from qworker.db.adapters import Connection, below_django, refuse_bytes, unwrap
from qworker.db.connection import is_unnamed, resolve_dsn
from qworker.db.drivers import Caller, in_transaction, rows
from qworker.db.dsn import parse
from qworker.db.pool import Pool
from qworker.db.sessions import is_two_phase
from qworker.db.statements import load
from qworker.options import UNSET

#: Seconds after which two connections to different servers are compared again: a failover may have joined them.
RECHECK = 60.0

# Addresses do not identify a server: one server may have several, and several servers may share that of a proxy.
_IDENTITY: LiteralString = """
SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text AS started, d.oid::pg_catalog.int8 AS database
  FROM pg_catalog.pg_database AS d
 WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
"""

_Target = tuple[str, tuple[Any, ...] | None]


class Ambient:
    """Finds the caller's open transaction, if it is in the application's database."""

    def __init__(self, pool: Pool, session: Callable[[], Any] | None = None) -> None:
        """Take the application's pool, and what returns its SQLAlchemy session."""
        self._pool = pool
        self._get_session = session
        self._sql = load("enqueue", pool.schema)
        #: What a test uses by default (`qworker.testing.join`): an argument of `caller`, or None.
        self.bound: Any = None
        #: For each pair of DSN and address: whether both are the same database, and until when the answer is valid.
        self._same: dict[_Target, tuple[bool, float]] = {}

    def caller(self, conn: Any = UNSET) -> Caller | None:
        """Return the connection that carries the caller's transaction, or None.

        If `conn` is not given, this is the connection of the application's session, if it is in a transaction, or of a
        Django transaction that is open in this thread.
        """
        if conn is None:
            return None
        caller = self._found(must_join=True) if conn is UNSET else unwrap(conn)
        if caller is not None:
            refuse_bytes(caller)
            if is_two_phase(caller):
                rows(caller, self._sql["without_wakeup"])
        return caller

    def reader(self, conn: Any = UNSET) -> Caller | None:
        """Return the connection for reading what `caller` would have written; None: the application's own."""
        return self.joined(None) if conn is UNSET else self.caller(conn)

    def default(self) -> Caller | None:
        """Return the connection for statements that join no transaction; None: one of the pool."""
        return None

    def joined(self, conn: Any) -> Caller | None:
        """Return the connection on which a job enqueued on `conn` is visible; None for a connection of the pool."""
        if conn is not None and in_transaction(caller := unwrap(conn)):
            return caller
        caller_or_none = self._found(must_join=False)
        if caller_or_none is not None:
            refuse_bytes(caller_or_none)
        return caller_or_none

    def _found(self, *, must_join: bool) -> Caller | None:
        if self.bound is not None:
            return unwrap(self.bound)
        session = self.open_session()
        if session is not None and self._is_ours(caller := unwrap(session), None):
            return caller
        return self._django(must_join=must_join)

    def open_session(self) -> Any:
        """Return the application's session; None if there is none, or it is not in a transaction.

        Flask has no session outside of its application contexts.
        """
        if self._get_session is None:
            return None
        try:
            session = self._get_session()
            if hasattr(session, "registry"):
                session = session()  # a scoped_session cannot be asked whether it is in a transaction
            if session is None or not session.in_transaction():
                return None
        except RuntimeError as error:
            if not str(error).startswith("Working outside of application context"):
                raise
            return None
        return session

    def _django(self, *, must_join: bool) -> Connection | None:
        """Return the connection of the Django transaction that is running in the application's database.

        must_join: raise TypeError where its driver keeps a job from joining it. A job committed at once instead would
        run before the block commits, and also if it never does.
        """
        django = sys.modules.get("django.db")
        settings = getattr(sys.modules.get("django.conf"), "settings", None)
        if django is None or settings is None or not settings.configured:
            return None
        for wrapper in django.connections.all(initialized_only=True):
            # Without autocommit each statement belongs to a transaction, even outside an atomic block.
            if wrapper.vendor == "postgresql" and (wrapper.in_atomic_block or not wrapper.autocommit):
                conn = wrapper.connection
                if isinstance(conn, psycopg.Connection):
                    if self._is_ours(conn, wrapper.alias):
                        return below_django(wrapper)
                elif must_join and conn is not None and self._has_our_name(wrapper):
                    return below_django(wrapper)  # raises
        return None

    def _has_our_name(self, wrapper: Any) -> bool:
        return parse(resolve_dsn(self._pool.dsn)).get("dbname") in (None, wrapper.settings_dict.get("NAME"))

    def _is_ours(self, conn: Caller, alias: str | None) -> bool:
        """Return whether a connection leads to the application's database. alias: of Django; None for the session."""
        dsn, address = resolve_dsn(self._pool.dsn), _address(conn)
        target = (dsn, address)
        same, until = self._same.get(target, (False, 0.0))
        if same or monotonic() < until:
            return same
        if isinstance(conn, psycopg.Connection) and conn.pgconn.transaction_status == TransactionStatus.INERROR:
            return True  # it can run no statement, so the job's INSERT raises the server's own error
        wanted = parse(dsn)
        if _names(wanted, conn) or (not dsn and is_unnamed(dsn)):
            same = True
        elif alias is None or wanted.get("dbname") in (None, _database(conn)):
            with self._pool.connection() as own:
                same = _identity(own) == _identity(conn)
            if not same:
                self._warn(conn, alias)
        else:
            same = False  # a database of Django with another name is another database
        if address is not None:
            self._same[target] = same, monotonic() + RECHECK
        return same

    def _warn(self, conn: Caller, alias: str | None) -> None:
        found = "the application's session" if alias is None else f"the transaction of Django's database {alias!r}"
        remedy = "using(session)" if alias is None else f"using({alias!r})"
        warnings.warn(
            f"{found} is in {_where(conn)}, not in the database of the jobs: jobs do not join it and are committed at "
            f"once. Pass {remedy} to join it, or conn=None if this is intended",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Return the stacklevel of the library's caller for a warning issued by the function that calls this one."""
    here, level, frame = os.path.dirname(__file__), 1, sys._getframe(1)  # noqa: PTH120, SLF001
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level


def _address(conn: Caller) -> tuple[Any, ...] | None:
    """Return the host, port and database of a connection; None if its driver does not know them."""
    if isinstance(conn, psycopg.Connection):
        pgconn = conn.pgconn
        return pgconn.host, pgconn.port, pgconn.db
    return conn.address


def _names(wanted: dict[str, Any], conn: Caller) -> bool:
    """Return whether the parameters of a DSN name the host, port and database of a connection literally."""
    if isinstance(conn, psycopg.Connection):
        info = conn.info
        hosts, port, database = {info.host, info.hostaddr}, str(info.port), info.dbname
    elif conn.address is not None:
        host, port, database = conn.address
        hosts = {host}
    else:
        return False
    named = wanted.get("hostaddr") or wanted.get("host"), str(wanted.get("port") or "5432"), wanted.get("dbname")
    return named[0] in hosts and named[1:] == (port, database)


def _database(conn: Caller) -> str | None:
    if isinstance(conn, psycopg.Connection):
        return conn.info.dbname
    return None if conn.address is None else conn.address[2]


def _where(conn: Caller) -> str:
    """Return the database of a connection and its server, for a message."""
    if isinstance(conn, psycopg.Connection):
        return f"{conn.info.dbname!r} ({conn.info.host}:{conn.info.port})"
    if conn.address is None:
        return "another database"
    host, port, database = conn.address
    return f"{database!r} ({host}:{port})"


def _identity(conn: Caller) -> tuple[Any, ...] | None:
    return next((tuple(row) for row in rows(conn, _IDENTITY)), None)
