"""The application's own connections: opened when needed, in the thread that needs one, and never across a fork."""

import os
import select
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from qworker.db.connection import connect, resolve_dsn
from qworker.db.deadline import DeadlineConnection
from qworker.db.errors import translate, unreachable
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import DatabaseUnavailable

#: Connections that one process opens at most; further threads wait for one.
MAX_SIZE = 20
#: Seconds a thread waits for a connection when all are busy.
WAIT_TIMEOUT = 10.0
#: Seconds after which an unused connection is closed, by the next use of another.
MAX_IDLE = 300.0

Connection = psycopg.Connection[Any]


class Borrowed:
    """A connection for the length of a `with` block, where the driver's errors become qworker's."""

    __slots__ = ("_conn", "_own", "_pool")

    def __init__(self, pool: "Pool", conn: Connection | None) -> None:
        self._pool = pool
        self._own = conn is None
        self._conn = conn

    def __enter__(self) -> Connection:
        if self._conn is None:
            self._conn = self._pool.getconn()
        return self._conn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        conn = self._conn
        if conn is None:
            return
        explained = error and translate(error, conn, self._pool.schema, own=self._own)
        if self._own:
            self._pool.putconn(conn, read_only=isinstance(error, psycopg.errors.ReadOnlySqlTransaction))
        if explained:
            # Of an error of psycopg the copy says less than the original, and that for a reason.
            raise explained from None if isinstance(explained, psycopg.Error) else error


class Pool:
    """Lends connections to one database.

    It has no threads: a server that is away raises its reason at once in the caller, and a process may fork while
    connections are open (`gunicorn --preload`, uWSGI). A child starts with none and leaves its parent's alone.
    """

    def __init__(
        self,
        dsn: str | Callable[[], str] | None = None,
        schema: str = DEFAULT_SCHEMA,
        *,
        size: int = MAX_SIZE,
        patience: float = WAIT_TIMEOUT,
    ) -> None:
        #: What was given; resolved at each connect.
        self.dsn = dsn
        #: The schema meant, for errors.
        self.schema = schema
        self._size = size
        self._wait_timeout = patience
        # By process id, and never deleted: closing an inherited connection would end the parent's session.
        self._per_process: dict[int, _ProcessConnections] = {}
        weakref.finalize(self, _drain, self._per_process)

    def connection(self, conn: Connection | None = None) -> Borrowed:
        """Lend an autocommit connection for a `with` block; or the one given, which stays the caller's."""
        return Borrowed(self, conn)

    def getconn(self) -> Connection:
        """Return an autocommit connection that must be `put` back.

        Raises DatabaseUnavailable when the server is not there, or all connections are busy for too long.
        """
        stock = self._per_process.get(os.getpid()) or self._per_process.setdefault(os.getpid(), _ProcessConnections())
        while True:
            try:
                conn, _ = stock.idle.pop()
            except IndexError:
                if stock.wait(self._size, self._wait_timeout):
                    return self._open(stock)
            else:
                # It has nothing to say, unless it is the server's farewell. A system call, no round trip.
                if not conn.closed and not stock.owned[conn].poll(0):
                    return conn
                stock.drop(conn)

    def putconn(self, conn: Connection, *, read_only: bool = False) -> None:
        """Take a connection back; one that is not idle is closed, one of another process left alone.

        read_only: the server takes no writes there. A session keeps that after a maintenance window, and behind a proxy
        when another server has become the primary: it is closed, and with it the unused ones, which are no younger.
        """
        stock = self._per_process.get(os.getpid())
        if stock is None or conn not in stock.owned:
            return
        if conn.pgconn.transaction_status == TransactionStatus.IDLE and not read_only:
            stock.keep(conn)
            return
        stock.drop(conn)
        if read_only or (isinstance(conn, DeadlineConnection) and conn.timed_out):
            # A proxy has lost its server: nobody would answer on the others either, each for as long.
            _drain(self._per_process)

    def close(self) -> None:
        """Close this process's unused connections; the next use opens new ones."""
        _drain(self._per_process)

    def _open(self, stock: "_ProcessConnections") -> Connection:
        dsn = ""
        try:
            dsn = resolve_dsn(self.dsn)
            conn = connect(dsn, "client")
            stock.own(conn)
        except BaseException as error:
            stock.forget()
            if isinstance(error, psycopg.OperationalError):
                found = unreachable(dsn, error)
                raise found from found.__cause__
            raise
        return conn


class _ProcessConnections:
    """The connections of one process; the newest on top, so that what is not needed grows old at the bottom."""

    def __init__(self) -> None:
        self.idle: list[tuple[Connection, float]] = []
        #: Those of this process, each with what tells whether the server has said something.
        self.owned: dict[Connection, select.poll] = {}
        self._changed = threading.Condition()
        self._opened = 0
        self._waiting = 0

    def wait(self, size: int, patience: float) -> bool:
        """Wait for an idle connection, or for the right to open one; only in this case return True."""
        with self._changed:
            # Announced before looking: who keeps a connection after this look sees that somebody waits.
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: self.idle or self._opened < size, patience):
                    raise DatabaseUnavailable(f"all {size} connections have been busy for {patience:g} s")
            finally:
                self._waiting -= 1
            if self.idle:
                return False
            self._opened += 1
            return True

    def own(self, conn: Connection) -> None:
        """Take in a new connection."""
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        self.owned[conn] = poll

    def keep(self, conn: Connection) -> None:
        """Put a connection on top, wake who waits, and close what has not been used for long."""
        now = monotonic()
        self.idle.append((conn, now))
        if self._waiting:
            with self._changed:
                self._changed.notify()
        try:
            # Without a lock: another thread may take any of them between two steps.
            if self.idle[0][1] < now - MAX_IDLE:
                self.drop(self.idle.pop(0)[0])
        except IndexError:
            pass

    def drop(self, conn: Connection) -> None:
        """Close a connection."""
        conn.close()
        self.owned.pop(conn, None)
        self.forget()

    def forget(self) -> None:
        """Give the right to open a connection back."""
        with self._changed:
            self._opened -= 1
            self._changed.notify()


def _drain(stocks: dict[int, _ProcessConnections]) -> None:
    stock = stocks.get(os.getpid())
    while stock and stock.idle:
        conn, _ = stock.idle.pop()
        stock.drop(conn)
