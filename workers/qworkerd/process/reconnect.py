"""A connection that is opened again when it is lost, so that processes survive an unavailable database."""

import random
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import psycopg

from qworker.backoff import Backoff
from qworker.db import connection
from qworkerd import log
from qworkerd.log.redaction import register_secret
from qworkerd.process.descriptors import fill_standard

#: The delay between attempts to connect.
RECONNECT = Backoff(0.1, 1.0)

#: The connection was lost or not established. Whether the statement was executed is unknown.
LOST = (psycopg.OperationalError, psycopg.InterfaceError)
#: The server has rejected the statement without executing it; the same statement may succeed later.
REJECTED = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InsufficientPrivilege,
)


class Source(Protocol):
    """The DSN of a process, read anew for each connection: credentials may have been rotated."""

    @property
    def dsn(self) -> str:
        """The connection string."""

    @property
    def direct_dsn(self) -> str:
        """The DSN that bypasses a pooler, if there is one."""

    @property
    def statement_timeout(self) -> float:
        """The client-side limit of a statement (seconds)."""

    def reconnected(self, role: str) -> None:
        """Count a connection that was lost and made again."""


def is_transient(error: Exception) -> bool:
    """Return whether the same statement may succeed later: the server was unavailable, or rejected it temporarily.

    psycopg maps exceeded limits of the server (class 54, such as a row too large for an index) to OperationalError, but
    such an error depends on the values of the statement.
    """
    limit = isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("54")
    # OSError: there was no descriptor or no memory for a connection.
    return isinstance(error, (*REJECTED, *LOST, OSError)) and not limit


def may_concern_one_row(error: psycopg.Error) -> bool:
    """Return whether a single row may be the cause of an error, for example by a trigger, so that others may succeed.

    An error in a statement of qworker has no context. The context of an error in a function names the function.
    """
    if is_transient(error):
        return False
    return bool(error.diag.context) or (error.sqlstate or "42")[:2] != "42"


class ReconnectingConnection:
    """A connection for the framework's statements, opened when it is needed and again after it was lost.

    psycopg_pool would wait for minutes between attempts; this class waits for at most a second.
    """

    def __init__(
        self,
        source: Source,
        role: str,
        pause: Callable[[float], object],
        should_stop: Callable[[], bool],
        *,
        direct: bool = False,
        **options: Any,
    ) -> None:
        self._source = source
        #: Whether to bypass a pooler, if possible.
        self._direct = direct
        self._role = role
        self._options = {"statement_timeout": source.statement_timeout} | options
        self._sleep = pause
        self._should_stop = should_stop
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        #: Number of connections made so far.
        self.generation = 0
        self._log = log.get()

    def get(self) -> psycopg.Connection[tuple[Any, ...]] | None:
        """Return the connection, reconnecting if necessary; None if the caller wants to stop."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        attempt, since, next_report = 0, monotonic(), 0.0
        hint: dict[str, str] = {}
        while not self._should_stop():
            try:
                fill_standard()
                dsn = self._source.direct_dsn if self._direct else self._source.dsn
                register_secret(dsn)
                hint = {"hint": connection.UNNAMED} if connection.is_unnamed(dsn) else {}
                self._connection = self._writable(connection.connect(dsn, self._role, **self._options))
            # Not only LOST: if no descriptor is free, the error is an OSError, and a callable that returns the DSN may
            # raise any exception.
            except Exception as error:  # noqa: BLE001
                message = str(error).strip().splitlines()
                unavailable_for = monotonic() - since
                if unavailable_for >= next_report:  # log at once, then at growing intervals
                    next_report = max(2 * unavailable_for, 1.0)
                    self._log.warning(
                        "database.disconnected",
                        connection=self._role,
                        error=message[0] if message else type(error).__name__,
                        unavailable_for=round(unavailable_for, 1),
                        **hint,
                    )
                attempt += 1
                self._sleep(RECONNECT.delay(attempt) * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            self.generation += 1
            if self.generation > 1:
                self._source.reconnected(self._role.partition(" ")[0])
                self._log.info(
                    "database.reconnected", connection=self._role, unavailable_for=round(monotonic() - since, 1)
                )
            return self._connection
        return None

    def _writable(self, database: psycopg.Connection[tuple[Any, ...]]) -> psycopg.Connection[tuple[Any, ...]]:
        """Return the connection if the server accepts writes; otherwise close it and raise."""
        try:
            reason = connection.read_only(database)
        except BaseException:
            database.close()
            raise
        if reason is not None:
            database.close()
            raise psycopg.errors.ReadOnlySqlTransaction(reason)
        return database

    def drop(self) -> None:
        """Close the connection; the next `get` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def usable_after(self, error: Exception) -> bool:
        """Return whether the connection can be used after an error; drop it if not."""
        current = self._connection
        # An error that is not psycopg's may have interrupted a statement. After a read-only error another server may
        # have become the primary, and a session that began as read-only remains read-only.
        usable = isinstance(error, psycopg.Error) and not isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        if usable and current is not None and not current.closed:
            return True
        self.drop()
        return False
