"""The pooled connection that handlers may use: `current_job.connection`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from qworker.db.connection import conninfo
from qworker.db.deadline import DeadlineConnection, answer_timeout_set
from qworker.db.pgbouncer import detect
from qworker.errors import QworkerError
from qworkerd.outcomes.outcome import Session
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot
from qworkerd.worker.session import (
    TransactionEnded,
    mark_transaction,
    reset,
    reset_before_commit,
    reset_client,
    verify_transaction,
)

#: How long a commit may take until its outcome counts as unknown, and a rollback until the connection is given up
#: (seconds). The server has its own settings here, and may have deferred work to do.
COMMIT_TIMEOUT, ROLLBACK_TIMEOUT = 300.0, 10.0

Transaction = AbstractContextManager[psycopg.Transaction]


class ClaimLost(QworkerError):
    """The job was taken from this worker before its work could be committed, and so nothing of it was."""


class JobConnection:
    """Lends one connection at a time, opened by the first handler that asks; its work ends with the handler's.

    An ordinary session, with the server's own settings: the framework's statements never travel on it.
    """

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        self._node = node
        self._role = f"job {slot.child} {slot.session_tag}"
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._pid = 0
        self._transaction: Transaction | None = None
        self._roles: tuple[str, ...] = ()
        #: The session of the last connection taken back, if it was lost before its commit was confirmed.
        self.lost: Session | None = None

    def open(self) -> psycopg.Connection[Any]:
        """Return a connection that is not in a transaction; raises psycopg_pool.PoolTimeout when there is none."""
        if self._pool is None:
            self._pool = ConnectionPool(
                self._conninfo, connection_class=DeadlineConnection, min_size=1, max_size=1, num_workers=1,
                timeout=10.0,
                open=True, check=ConnectionPool.check_connection, configure=detect, name="handlers",
            )  # fmt: skip
        connection = self._pool.getconn()
        reset_client(connection)
        self._pid = connection.info.backend_pid
        return connection

    def open_transaction(self) -> psycopg.Connection[Any]:
        """Return a connection in a transaction that is not the handler's to end: commit() and rollback() raise."""
        connection = self.open()
        transaction = connection.transaction()
        try:
            transaction.__enter__()
            self._roles = mark_transaction(connection)
        except BaseException:
            self._return(connection)
            raise
        self._transaction = transaction
        return connection

    def _conninfo(self) -> str:
        return conninfo(self._node.dsn, self._role)

    def finish(
        self, connection: psycopg.Connection[Any], *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        """Commit or roll back what the handler has done, and reset the session; return what went wrong.

        last: what is to be done before the commit; False: the job is no longer ours, and nothing is committed.
        """
        transaction, self._transaction, self.lost = self._transaction, None, None
        try:
            if not commit:
                ended = self._ended(connection, transaction)
                self._roll_back(connection, transaction)
                return ended
            with answer_timeout_set(connection, COMMIT_TIMEOUT):
                _check(connection)
                if transaction is not None:
                    verify_transaction(connection, self._roles)
                _finish(before_commit)
                reset_before_commit(connection)
                if transaction is None:
                    connection.commit()
                else:
                    transaction.__exit__(None, None, None)
        except (psycopg.Error, ClaimLost, TransactionEnded) as error:
            if connection.closed:
                self.lost = Session(self._pid, self._role)
            else:
                self._roll_back(connection, transaction)
            return error
        finally:
            self._return(connection)
        return None

    def _ended(self, connection: psycopg.Connection[Any], transaction: Transaction | None) -> TransactionEnded | None:
        """Tell whether a handler that raises has committed part of its work before, as far as that can be told."""
        if transaction is None or connection.pgconn.transaction_status == TransactionStatus.INERROR:
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
        """Undo what the handler has done; where that fails the pool closes the connection, which does it too."""
        if connection.closed:
            return
        with suppress(psycopg.Error), answer_timeout_set(connection, ROLLBACK_TIMEOUT):
            if transaction is None:
                connection.rollback()
            else:
                transaction.__exit__(psycopg.Rollback, psycopg.Rollback(), None)

    def _return(self, connection: psycopg.Connection[Any]) -> None:
        if self._pool is not None:
            reset(connection)
            self._pool.putconn(connection)

    def close(self) -> None:
        """Close the pool, without waiting for its threads for long."""
        if self._pool is not None:
            self._pool.close(timeout=1.0)


def _check(connection: psycopg.Connection[Any]) -> None:
    """Raise what keeps a commit from coming."""
    if connection.pgconn.transaction_status == TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction(
            "the handler has caught an error of the database and returned: the server commits nothing after it"
        )


def _finish(last: Callable[[], bool] | None) -> None:
    """Do what is to be done before the commit."""
    if last is not None and not last():
        raise ClaimLost("the claim was over; nothing was committed")
