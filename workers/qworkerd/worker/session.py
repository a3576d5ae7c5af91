"""The session that handlers are lent: reset after each of them, examined before the end of a job is written on it."""

from contextlib import suppress
from typing import Any, Final, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from qworker.db.deadline import answer_timeout_set
from qworker.db.pgbouncer import is_pooled
from qworker.errors import PermanentError

#: How long the server may take to reset a session, until the connection is given up (seconds).
RESET_TIMEOUT: Final = 10.0

# What DISCARD ALL does, in one message, but for the statements that psycopg has prepared and goes on using: those of
# SQL's PREPARE are from_sql. RESET ALL leaves role and session authorization as they are.
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
# The same in the transaction of the work, where the next one may meet another session: what is prepared there belongs
# to others.
_RESET_POOLED: Final = b"""
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP
"""
# No query: one would keep the handler from setting the isolation level of its transaction.
_MARK: Final = b"SET LOCAL qworker.in_transaction = 'yes'; SHOW role; SHOW session_authorization"
_LOOK: Final = (
    "SELECT pg_catalog.current_setting('qworker.in_transaction', true),"
    " pg_catalog.current_setting('role'), pg_catalog.current_setting('session_authorization')"
)
# Deferred triggers are fired while the role is still the handler's.
_RESET_ROLE: Final = b"SET CONSTRAINTS ALL IMMEDIATE; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE"

_ENDED: Final = (
    "the handler of a transactional task has sent COMMIT, ROLLBACK or RESET ALL itself: what it has committed stays, "
    "and the job is not run again. Leave the end of the transaction to the worker, use savepoints "
    "(connection.transaction()), or declare the task without transactional=True"
)


class TransactionEnded(PermanentError):
    """A transactional handler has ended the transaction that was to end with its job.

    What it has committed stays. The job fails for good: another attempt would do that work again.
    """


class TransactionCursor(psycopg.Cursor[Any]):
    """The cursor of a transactional task: COMMIT and ROLLBACK raise where they are sent.

    Other cursors may send them all the same; `look` finds that at the end.
    """

    def execute(self, *args: Any, **options: Any) -> Self:
        """Execute a statement."""
        super().execute(*args, **options)
        # ROLLBACK TO SAVEPOINT answers ROLLBACK as well, and ends nothing.
        if self.connection.pgconn.transaction_status == TransactionStatus.IDLE and not self.connection.autocommit:
            raise TransactionEnded(_ENDED)
        return self


def reset_client(connection: psycopg.Connection[Any]) -> None:
    """Give a connection that is idle its attributes back: a handler may have changed any of them."""
    connection.autocommit = False
    connection.isolation_level = connection.read_only = connection.deferrable = None
    connection.row_factory = tuple_row
    connection.cursor_factory = psycopg.Cursor
    connection.server_cursor_factory = psycopg.ServerCursor


def reset_before_commit(connection: psycopg.Connection[Any]) -> None:
    """Behind a pooler: reset the session in the transaction that is about to be committed, for it is others' next."""
    if is_pooled(connection) and connection.pgconn.transaction_status == TransactionStatus.INTRANS:
        psycopg.ClientCursor(connection).execute(_RESET_POOLED)


def reset(connection: psycopg.Connection[Any]) -> None:
    """Reset the session of a connection whose transaction is over; close the connection where that fails."""
    if connection.closed:
        return
    try:
        with answer_timeout_set(connection, RESET_TIMEOUT):
            connection.autocommit = True
            psycopg.ClientCursor(connection).execute(_RESET_POOLED if is_pooled(connection) else _RESET)
    except psycopg.Error:
        # A statement_timeout of the handler's own, for instance: the next job gets another session.
        with suppress(psycopg.Error):
            connection.close()


def mark_transaction(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """Mark the transaction that has just begun; return the roles it runs under, for `look`."""
    cursor = psycopg.ClientCursor(connection, row_factory=tuple_row).execute(_MARK)
    connection.cursor_factory = TransactionCursor
    roles: list[str] = []
    while cursor.nextset():
        roles += cursor.fetchone() or ()
    return tuple(roles)


def verify_transaction(connection: psycopg.Connection[Any], roles: tuple[str, ...]) -> None:
    """Make sure that a transaction is the one that was marked, and give it back the roles it began with.

    The end of the job is written under them. Raises TransactionEnded if the handler has sent COMMIT or ROLLBACK itself.
    """
    now: tuple[Any, ...] = ()
    if connection.pgconn.transaction_status == TransactionStatus.INTRANS:
        now = psycopg.Cursor(connection, row_factory=tuple_row).execute(_LOOK, prepare=False).fetchone() or ()
    if not now or now[0] != "yes":
        raise TransactionEnded(_ENDED)
    if now[1:] != roles:
        psycopg.ClientCursor(connection).execute(_RESET_ROLE)
