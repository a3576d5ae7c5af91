"""The application's own connections: opened when needed, in the thread that needs one, and never across a fork."""

import os
import select
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from qworker.connection import connect, redact, resolve_dsn
from qworker.errors import DatabaseUnavailable

#: Connections that one process opens at most; further threads wait for one.
SIZE = 20
#: Seconds a thread waits for a connection when all are busy.
PATIENCE = 10.0
#: Seconds after which an unused connection is closed, by the next use of another.
IDLE = 300.0

_Connection = psycopg.Connection[tuple[Any, ...]]


class _Stock:
    """The connections of one process: newest on top, so that what is not needed grows old at the bottom."""

    def __init__(self, size: int) -> None:
        self.places = threading.BoundedSemaphore(size)
        self.idle: list[tuple[_Connection, float]] = []


class Pool:
    """Lends connections to one database.

    It has no threads: a server that is away raises its reason at once in the caller, and a process may fork while
    connections are open (`gunicorn --preload`, uWSGI). A child starts with none and leaves its parent's alone.
    """

    def __init__(
        self, dsn: str | Callable[[], str] | None = None, *, size: int = SIZE, patience: float = PATIENCE
    ) -> None:
        #: What was given; resolved at each connect.
        self.dsn = dsn
        self._size = size
        self._patience = patience
        # By process id, and never deleted: closing an inherited connection would end the parent's session.
        self._stocks: dict[int, _Stock] = {}
        weakref.finalize(self, _drain, self._stocks)

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """Lend an autocommit connection; one that is not idle when it comes back is closed.

        Raises DatabaseUnavailable when the server is not there, hangs up meanwhile, or all connections stay busy.
        """
        stock = self._stocks.get(os.getpid()) or self._stocks.setdefault(os.getpid(), _Stock(self._size))
        if not stock.places.acquire(timeout=self._patience):
            raise DatabaseUnavailable(f"all {self._size} connections have been busy for {self._patience:g} s")
        try:
            conn = self._take(stock)
            try:
                yield conn
            except psycopg.OperationalError as error:
                if not conn.closed:
                    raise
                raise DatabaseUnavailable(f"the database hung up: {_reason(error)}") from error
            finally:
                self._return(stock, conn)
        finally:
            stock.places.release()

    def close(self) -> None:
        """Close this process's unused connections; the next use opens new ones."""
        _drain(self._stocks)

    def _take(self, stock: _Stock) -> _Connection:
        while stock.idle:
            try:
                conn, _ = stock.idle.pop()
            except IndexError:  # another thread was faster
                break
            if _alive(conn):
                return conn
            conn.close()
        dsn = resolve_dsn(self.dsn)
        try:
            return connect(dsn, "client")
        except psycopg.OperationalError as error:
            where = redact(dsn) if dsn else "of libpq's PG* variables, as no DSN is set"
            raise DatabaseUnavailable(f"no connection to the database {where}: {_reason(error)}") from error

    @staticmethod
    def _return(stock: _Stock, conn: _Connection) -> None:
        if conn.info.transaction_status is not TransactionStatus.IDLE:
            conn.close()
            return
        now = monotonic()
        stock.idle.append((conn, now))
        if stock.idle[0][1] < now - IDLE:
            old, _ = stock.idle.pop(0)
            old.close()


def _alive(conn: _Connection) -> bool:
    # An idle connection has nothing to say, unless it is the server's farewell. Costs a system call, no round trip.
    if conn.closed:
        return False
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return not poll.poll(0)


def _drain(stocks: dict[int, _Stock]) -> None:
    stock = stocks.get(os.getpid())
    while stock and stock.idle:
        stock.idle.pop()[0].close()


def _reason(error: psycopg.Error) -> str:
    return redact(str(error)).strip().replace("\n", "; ")
