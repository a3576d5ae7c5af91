"""A pool for the application's own connections: without threads, and safe across forks."""

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
from qworker.errors import DatabaseUnavailable, QworkerError

#: Maximum number of connections of one process. Further threads wait.
MAX_SIZE = 20
#: Seconds a thread waits for a connection when all are busy.
WAIT_TIMEOUT = 10.0
#: Seconds after which an unused connection is closed, when another connection is returned.
MAX_IDLE = 300.0

Connection = psycopg.Connection[Any]


class Borrowed:
    """Borrows a connection for a `with` block and translates psycopg's errors that leave it."""

    __slots__ = ("_conn", "_own", "_pool")

    def __init__(self, pool: "Pool", conn: Any) -> None:
        self._pool = pool
        self._own = conn is None
        self._conn = conn

    def __enter__(self) -> Connection:
        conn: Connection | None = self._conn
        if conn is None:
            self._conn = conn = self._pool.getconn()
        return conn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        conn = self._conn
        if conn is None:
            return
        translated = error and translate(error, conn, self._pool.schema, own=self._own)
        if self._own:
            self._pool.putconn(conn, read_only=isinstance(error, psycopg.errors.ReadOnlySqlTransaction))
        if translated:
            # A copy of a driver's error lacks the values of the job; its cause would still show them.
            raise translated from error if isinstance(translated, QworkerError) else None


class Pool:
    """A pool of connections to one database.

    It has no threads: if the server is unreachable, the caller gets the reason at once, and a process may fork while
    connections are open (`gunicorn --preload`, uWSGI). A child starts without connections and never touches its
    parent's.
    """

    def __init__(
        self,
        dsn: str | Callable[[], str] | None = None,
        schema: str = DEFAULT_SCHEMA,
        *,
        size: int = MAX_SIZE,
        wait_timeout: float = WAIT_TIMEOUT,
        writable: bool = True,
        **timeouts: float,
    ) -> None:
        """Timeouts are the statement_timeout and lock_timeout of its connections; these and writable: see `connect`."""
        #: The DSN or function as given; resolved at each connect.
        self.dsn = dsn
        #: The schema, for error messages.
        self.schema = schema
        self._size = size
        self._wait_timeout = wait_timeout
        self._writable = writable
        self._timeouts = timeouts
        # Keyed by process id. Never delete an entry: closing an inherited connection would end the parent's session.
        self._per_process: dict[int, _ProcessConnections] = {}
        weakref.finalize(self, _close_idle, self._per_process)

    def connection(self, conn: Any = None) -> Borrowed:
        """Borrow an autocommit connection for a `with` block, or wrap the given one, which remains the caller's.

        The block gets the given object, which is a connection of psycopg, or a DriverConnection.
        """
        return Borrowed(self, conn)

    def getconn(self) -> Connection:
        """Return an autocommit connection. Return it to the pool with `putconn`.

        Raises DatabaseUnavailable if the server cannot be reached or all connections stay busy for too long.
        """
        connections = self._per_process.get(os.getpid()) or self._per_process.setdefault(
            os.getpid(), _ProcessConnections()
        )
        while True:
            try:
                conn, _ = connections.idle.pop()
            except IndexError:
                if connections.wait(self._size, self._wait_timeout):
                    return self._open(connections)
            else:
                # An idle connection is readable only if the server closed it. This takes a system call, no round trip.
                if not conn.closed and not connections.owned[conn].poll(0):
                    return conn
                connections.drop(conn)

    def putconn(self, conn: Connection, *, read_only: bool = False) -> None:
        """Return a connection to the pool. If it is not idle it is closed; one of another process is left alone.

        read_only: the server rejected a write as read-only. A session stays read-only after a maintenance window ends,
        or behind a proxy when another server becomes the primary. The connection is closed, and so are the unused ones,
        which are at least as old.
        """
        connections = self._per_process.get(os.getpid())
        if connections is None or conn not in connections.owned:
            return
        if conn.pgconn.transaction_status == TransactionStatus.IDLE and not read_only:
            connections.keep(conn)
            return
        connections.drop(conn)
        if read_only or (isinstance(conn, DeadlineConnection) and conn.timed_out):
            # A proxy has lost its server. Each unused connection would wait for its own full timeout.
            _close_idle(self._per_process)

    def close(self) -> None:
        """Close this process's unused connections; the next use opens new ones."""
        _close_idle(self._per_process)

    def _open(self, connections: "_ProcessConnections") -> Connection:
        dsn = ""
        try:
            dsn = resolve_dsn(self.dsn)
            conn = connect(dsn, "client", writable=self._writable, **self._timeouts)
            connections.add(conn)
        except BaseException as error:
            connections.release_permit()
            if isinstance(error, psycopg.OperationalError):
                found = unreachable(dsn, error)
                raise found from found.__cause__
            raise
        return conn


class _ProcessConnections:
    """The connections of one process. The idle ones form a stack, so surplus ones at the bottom become old enough."""

    def __init__(self) -> None:
        self.idle: list[tuple[Connection, float]] = []
        #: All connections of this process, each with a poll object that reports whether it is readable.
        self.owned: dict[Connection, select.poll] = {}
        self._changed = threading.Condition()
        self._opened = 0
        self._waiting = 0

    def wait(self, size: int, timeout: float) -> bool:
        """Wait for an idle connection or a permit to open one. Return True if a permit was taken."""
        with self._changed:
            # Count this thread before checking: a thread that calls `keep` after the check sees the count and notifies.
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: self.idle or self._opened < size, timeout):
                    raise DatabaseUnavailable(f"all {size} connections have been busy for {timeout:g} s")
            finally:
                self._waiting -= 1
            if self.idle:
                return False
            self._opened += 1
            return True

    def add(self, conn: Connection) -> None:
        """Add a new connection."""
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        self.owned[conn] = poll

    def keep(self, conn: Connection) -> None:
        """Make a connection available, wake a waiting thread, and close a connection that was unused for too long."""
        now = monotonic()
        self.idle.append((conn, now))
        if self._waiting:
            with self._changed:
                self._changed.notify()
        try:
            # There is no lock: another thread may remove any of them between two steps.
            _, idle_since = self.idle[0]
            if idle_since < now - MAX_IDLE:
                oldest, _ = self.idle.pop(0)
                self.drop(oldest)
        except IndexError:
            pass

    def drop(self, conn: Connection) -> None:
        """Close a connection."""
        conn.close()
        self.owned.pop(conn, None)
        self.release_permit()

    def release_permit(self) -> None:
        """Return a permit to open a connection."""
        with self._changed:
            self._opened -= 1
            self._changed.notify()


def _close_idle(per_process: dict[int, _ProcessConnections]) -> None:
    connections = per_process.get(os.getpid())
    while connections and connections.idle:
        conn, _ = connections.idle.pop()
        connections.drop(conn)
