"""The pooled connection of handlers: `current_job.connection`."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool import ConnectionPool

from qworker.db.connection import conninfo
from qworker.db.deadline import answer_timeout_set
from qworker.errors import QworkerError
from qworkerd.outcomes.outcome import Session
from qworkerd.process.descriptors import fill_standard
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot
from qworkerd.worker.session import (
    HandlersConnection,
    TransactionEnded,
    mark_transaction,
    reset,
    reset_before_commit,
    verify_transaction,
)

#: Time after which the outcome of a commit is unknown, and after which a connection is closed instead of rolled back
#: (seconds). The server has its own settings here, and may have deferred work to do.
COMMIT_TIMEOUT, ROLLBACK_TIMEOUT = 300.0, 10.0

Transaction = AbstractContextManager[psycopg.Transaction]

#: If the handler closes the connection in one of these states, it is known whether its work was committed.
_COMMIT_KNOWN = (TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR)
_CLOSED = (
    "the handler has closed current_job.connection inside its transaction, which rolls back its work: leave the "
    "connection open; its transaction is committed when the handler returns"
)


class ClaimLost(QworkerError):
    """The worker lost its claim on the job before the work was committed; the work was rolled back."""


class JobConnection:
    """Provides a single connection, opened on first use; its transaction ends with the handler.

    It is an ordinary session with the server's settings. Of qworker's own statements, only the end of a transactional
    job is executed on it.
    """

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        self._node = node
        self._role = f"job {slot.child} {slot.session_tag}"
        self._pool: ConnectionPool[HandlersConnection] | None = None
        self._pid = 0
        self._threads = 0
        self._transaction: Transaction | None = None
        self._roles: tuple[str, ...] = ()
        #: The session of the last connection, if it was lost before its commit was confirmed.
        self.lost: Session | None = None

    def open(self) -> HandlersConnection:
        """Return a connection without a transaction; raises psycopg_pool.PoolTimeout if none can be opened."""
        if self._pool is None:
            self._pool = ConnectionPool(
                self._conninfo, connection_class=HandlersConnection, min_size=1, max_size=1, num_workers=1,
                timeout=10.0,
                open=True, check=ConnectionPool.check_connection, configure=HandlersConnection.configure,
                name="handlers",
            )  # fmt: skip
        connection = self._pool.getconn()
        connection.reset()
        self._pid = connection.info.backend_pid
        self._threads = threading.active_count()
        return connection

    def open_transaction(self) -> HandlersConnection:
        """Return a connection in a transaction that the handler cannot end: commit() and rollback() raise."""
        connection = self.open()
        transaction = connection.transaction()
        try:
            transaction.__enter__()
            self._roles = mark_transaction(connection)
        except BaseException:
            self._return(connection, failed=True)
            raise
        self._transaction = transaction
        return connection

    def _conninfo(self) -> str:
        fill_standard()
        return conninfo(self._node.dsn, self._role)

    def finish(
        self, connection: psycopg.Connection[Any], *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        """Commit or roll back the handler's work, and reset the session; return the error, if any.

        before_commit is called before the commit. If it returns False, the worker no longer owns the job, and the work
        is rolled back.
        """
        transaction, self._transaction, self.lost = self._transaction, None, None
        assert isinstance(connection, HandlersConnection)  # noqa: S101 - there is no other
        connection.restore()
        done = False
        try:
            if not commit:
                ended = self._ended(connection, transaction)
                self._roll_back(connection, transaction)
                return ended
            if connection.closed and (state := getattr(connection, "closed_in", None)) in _COMMIT_KNOWN:
                done = state == TransactionStatus.IDLE and transaction is None
                return None if done else psycopg.InterfaceError(_CLOSED)
            with answer_timeout_set(connection, COMMIT_TIMEOUT):
                _check(connection)
                if transaction is not None:
                    verify_transaction(connection, self._roles)
                _call_before_commit(before_commit)
                reset_before_commit(connection)
                if transaction is None:
                    connection.commit()
                else:
                    transaction.__exit__(None, None, None)
            done = True
        except (psycopg.Error, ClaimLost, TransactionEnded) as error:
            if connection.closed:
                self.lost = Session(self._pid, self._role)
            else:
                self._roll_back(connection, transaction)
            return error
        finally:
            self._return(connection, failed=not done)
        return None

    def _ended(self, connection: psycopg.Connection[Any], transaction: Transaction | None) -> TransactionEnded | None:
        """Return TransactionEnded if a handler that raised had committed part of its work before."""
        failed = connection.pgconn.transaction_status == TransactionStatus.INERROR
        if transaction is None or failed or _is_busy(connection):
            return None
        try:
            with answer_timeout_set(connection, ROLLBACK_TIMEOUT):
                verify_transaction(connection, self._roles)
        except TransactionEnded as ended:
            return None if connection.closed else ended
        except psycopg.Error:
            pass
        return None

    def _roll_back(self, connection: psycopg.Connection[Any], transaction: Transaction | None) -> None:
        """Roll back the handler's work. If that fails, the pool closes the connection, which rolls back as well."""
        if connection.closed:
            return
        if _is_busy(connection):  # a rollback would wait for data that nobody sends
            connection.close()
            return
        with suppress(psycopg.Error), answer_timeout_set(connection, ROLLBACK_TIMEOUT):
            if transaction is None:
                connection.rollback()
            else:
                transaction.__exit__(psycopg.Rollback, psycopg.Rollback(), None)

    def _return(self, connection: HandlersConnection, *, failed: bool) -> None:
        """Return a connection to the pool, which replaces it if it is closed."""
        if self._pool is not None:
            if threading.active_count() > self._threads:
                # A thread that the handler has not joined may continue to use it, in the transactions of the next job.
                connection.close()
            reset(connection, failed=failed)
            self._pool.putconn(connection)

    def close(self) -> None:
        """Close the pool without waiting long for its threads."""
        if self._pool is not None:
            self._pool.close(timeout=1.0)


def _check(connection: psycopg.Connection[Any]) -> None:
    """Raise if the server would roll back instead of committing."""
    if connection.pgconn.transaction_status == TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction(
            "the handler has caught a database error and returned, but after an error the server only rolls back"
        )
    if _is_busy(connection):
        raise psycopg.ProgrammingError(
            "the handler has returned in the middle of a COPY or query: its work is rolled back"
        )


def _is_busy(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a statement is in progress that waits for the client."""
    pgconn = connection.pgconn
    return pgconn.transaction_status == TransactionStatus.ACTIVE and pgconn.pipeline_status == PipelineStatus.OFF


def _call_before_commit(last: Callable[[], bool] | None) -> None:
    """Call the function that precedes the commit."""
    if last is not None and not last():
        raise ClaimLost("the job is no longer claimed by this worker; its work was rolled back")
