"""The database session of handlers: reset after each job, and checked before the end of a job is written in it."""

from contextlib import suppress
from typing import Any, Final, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from qworker.db.deadline import DeadlineConnection, answer_timeout_set
from qworker.db.pgbouncer import detect, is_pooled
from qworker.errors import PermanentError

#: Time allowed for the reset of a session, after which the connection is closed (seconds).
RESET_TIMEOUT: Final = 10.0

# What DISCARD ALL does, in one message, except for statements prepared by psycopg, which it will use again. Those of
# SQL's PREPARE have from_sql set. RESET ALL does not reset role and session authorization.
_RESET: Final = b"""
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all();
DO $$ DECLARE statement text; BEGIN
    FOR statement IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP
        EXECUTE pg_catalog.format('DEALLOCATE %I', statement);
    END LOOP;
END $$;
DISCARD SEQUENCES; DISCARD TEMP
"""
# The same within the transaction of the work, because the next one may use another session. Statements prepared there
# belong to other clients.
_RESET_POOLED: Final = b"""
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP
"""
# Not a query, which would prevent the handler from setting the isolation level of its transaction.
_MARK: Final = b"SET LOCAL qworker.in_transaction = 'yes'; SHOW role; SHOW session_authorization"
_VERIFY: Final = (
    "SELECT pg_catalog.current_setting('qworker.in_transaction', true),"
    " pg_catalog.current_setting('role'), pg_catalog.current_setting('session_authorization')"
)
# Deferred triggers fire before the handler's role is reset.
_RESET_ROLE: Final = b"SET CONSTRAINTS ALL IMMEDIATE; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE"

_ENDED: Final = (
    "the handler of a transactional task has sent COMMIT, ROLLBACK or RESET ALL itself: the work that it has committed "
    "is kept, and the job is not run again. Let the worker end the transaction, use savepoints "
    "(connection.transaction()), or declare the task without transactional=True"
)


class TransactionEnded(PermanentError):
    """A transactional handler has ended the transaction that was to end with its job.

    The work that it has committed is kept. The job fails without another attempt, which would repeat that work.
    """


class TransactionCursor(psycopg.Cursor[Any]):
    """The cursor of a transactional task: COMMIT and ROLLBACK raise where they are sent.

    Other cursors can send them nevertheless; `verify_transaction` detects that at the end.
    """

    def execute(self, *args: Any, **options: Any) -> Self:
        """Execute a statement."""
        super().execute(*args, **options)
        # ROLLBACK TO SAVEPOINT also returns the tag ROLLBACK, but does not end the transaction.
        if self.connection.pgconn.transaction_status == TransactionStatus.IDLE and not self.connection.autocommit:
            raise TransactionEnded(_ENDED)
        return self


class HandlersConnection(DeadlineConnection):
    """A connection that one handler after another uses; each finds the object as it was configured."""

    #: The state of the transaction when the handler closed the connection; None if the handler did not close it.
    closed_in: TransactionStatus | None = None

    def configure(self) -> None:
        """Detect PgBouncer, and record the state of the object for `restore`."""
        detect(self)
        self.closed_in = None
        self._names = frozenset(vars(self))
        self._prepare = self.prepare_threshold, self.prepared_max

    def close(self) -> None:
        """Close the connection, which rolls back its transaction."""
        if not self.closed:
            self.closed_in = TransactionStatus(self.pgconn.transaction_status)
        super().close()

    def restore(self) -> None:
        """Undo what a handler has set on the object, before qworker ends its transaction on it."""
        for name in [name for name in vars(self) if name not in self._names and not name.startswith("_")]:
            delattr(self, name)  # a function in place of a method, for example
        self.prepare_threshold, self.prepared_max = self._prepare  # the threshold also says that there is a pooler

    def reset(self) -> None:
        """Undo on an idle connection what a handler has set on the object or registered with it."""
        self.autocommit = False
        self.isolation_level = self.read_only = self.deferrable = None
        self.row_factory = tuple_row
        self.cursor_factory = psycopg.Cursor
        self.server_cursor_factory = psycopg.ServerCursor
        self._adapters = None  # psycopg copies its global ones again
        self._notice_handlers, self._notify_handlers = [], []
        if self._notifies_backlog:
            self._notifies_backlog.clear()


def reset_before_commit(connection: psycopg.Connection[Any]) -> None:
    """Behind a pooler, reset the session before the transaction commits: other clients use it afterwards."""
    if is_pooled(connection) and connection.pgconn.transaction_status == TransactionStatus.INTRANS:
        psycopg.ClientCursor(connection).execute(_RESET_POOLED)


def reset(connection: psycopg.Connection[Any], *, failed: bool) -> None:
    """Reset the session of a connection after its transaction; close the connection if that fails.

    A session that began as read-only remains so when the server accepts writes again. It may be why the job has failed.
    """
    if connection.closed:
        return
    try:
        with answer_timeout_set(connection, RESET_TIMEOUT):
            connection.autocommit = True
            psycopg.ClientCursor(connection).execute(_RESET_POOLED if is_pooled(connection) else _RESET)
        if failed and _is_read_only(connection):
            connection.close()
    except psycopg.Error:
        # For example because of a statement_timeout set by the handler. The next job gets another session.
        with suppress(psycopg.Error):
            connection.close()


def _is_read_only(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a session accepts no writes by default, as the server has reported. Costs no round trip."""
    status = connection.pgconn.parameter_status
    return b"on" in (status(b"default_transaction_read_only"), status(b"in_hot_standby"))


def mark_transaction(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """Mark the transaction that has just begun; return its roles for `verify_transaction`."""
    cursor = psycopg.ClientCursor(connection, row_factory=tuple_row).execute(_MARK)
    connection.cursor_factory = TransactionCursor
    roles: list[str] = []
    while cursor.nextset():
        roles += cursor.fetchone() or ()
    return tuple(roles)


def verify_transaction(connection: psycopg.Connection[Any], roles: tuple[str, ...]) -> None:
    """Verify that this is the transaction that was marked, and restore its initial roles.

    The end of the job is written with these roles. Raises TransactionEnded if the handler has sent COMMIT or ROLLBACK.
    """
    found: tuple[Any, ...] = ()
    if connection.pgconn.transaction_status == TransactionStatus.INTRANS:
        found = psycopg.Cursor(connection, row_factory=tuple_row).execute(_VERIFY, prepare=False).fetchone() or ()
    mark, *current = found or (None,)
    if mark != "yes":
        raise TransactionEnded(_ENDED)
    if tuple(current) != roles:
        psycopg.ClientCursor(connection).execute(_RESET_ROLE)
