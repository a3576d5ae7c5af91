"""A connection that comes back: how the processes outlive a database that is away."""

import random
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import psycopg

from qworker.db import connection
from qworkerd import log
from qworkerd.log.redaction import register_secret

#: Between two tries to connect (seconds): the first, and the longest.
RECONNECT_FIRST, RECONNECT_LONGEST = 0.1, 1.0

#: The connection is gone, or never was: what its statement did is not known.
LOST = (psycopg.OperationalError, psycopg.InterfaceError)
#: The server has refused the statement for now; nothing was done, and the same statement may pass later.
REFUSED = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InsufficientPrivilege,
)


class Source(Protocol):
    """Where a process connects; asked anew for each connect, as credentials may have been rotated."""

    @property
    def dsn(self) -> str:
        """The connection string."""

    @property
    def direct_dsn(self) -> str:
        """The same, past a pooler if there is a way."""

    @property
    def statement_timeout(self) -> float:
        """How long a statement may take (seconds)."""


def may_pass_later(error: Exception) -> bool:
    """Tell whether the same statement may pass later: the server was away, or refused it for now.

    psycopg counts the limits of the server among the operational errors (class 54: a row too large for an index), but
    they are about what a statement says.
    """
    limit = isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("54")
    # OSError: no descriptor or no memory is left for a connection.
    return isinstance(error, (*REFUSED, *LOST, OSError)) and not limit


def is_of_a_row(error: psycopg.Error) -> bool:
    """Tell whether a single row may be the cause of an error, by a trigger for instance: other rows may pass.

    An error in a statement of ours has no context; an error in a function names the function there.
    """
    if may_pass_later(error):
        return False
    return bool(error.diag.context) or (error.sqlstate or "42")[:2] != "42"


class ReconnectingConnection:
    """One connection for the framework's statements, made when it is needed and again when it was lost.

    psycopg_pool would wait for minutes between its tries; here it is a second at the most.
    """

    def __init__(
        self,
        source: Source,
        role: str,
        pause: Callable[[float], object],
        should_stop: Callable[[], bool],
        *,
        direct: bool = False,
        **options: float,
    ) -> None:
        self._source = source
        #: Whether it goes past a pooler, if there is a way.
        self._direct = direct
        self._role = role
        self._options = {"statement_timeout": source.statement_timeout} | options
        self._pause = pause
        self._should_stop = should_stop
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        #: How often a connection was made.
        self.generation = 0
        self._log = log.get()

    def get(self) -> psycopg.Connection[tuple[Any, ...]] | None:
        """Return the connection, made anew if it has to be; None once the caller has given up."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        delay, since, told = RECONNECT_FIRST, monotonic(), 0.0
        while not self._should_stop():
            try:
                dsn = self._source.direct_dsn if self._direct else self._source.dsn
                register_secret(dsn)
                self._connection = self._writable(connection.connect(dsn, self._role, **self._options))
            # Not LOST alone: without a free descriptor it is an OSError, and who is asked for the DSN raises anything.
            except Exception as error:  # noqa: BLE001
                said = str(error).strip().splitlines()
                away = monotonic() - since
                if away >= told:  # at once, then ever more rarely
                    told = max(2 * away, 1.0)
                    self._log.warning(
                        "database.disconnected",
                        link=self._role,
                        error=said[0] if said else type(error).__name__,
                        away_for=round(away, 1),
                    )
                self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311
                delay = min(delay * 2, RECONNECT_LONGEST)
                continue
            self.generation += 1
            if self.generation > 1:
                self._log.info("database.reconnected", link=self._role, away_for=round(monotonic() - since, 1))
            return self._connection
        return None

    def _writable(self, database: psycopg.Connection[tuple[Any, ...]]) -> psycopg.Connection[tuple[Any, ...]]:
        """Return the connection if the server takes writes; one that does not is away, and said as rarely."""
        try:
            why = connection.read_only(database)
        except BaseException:
            database.close()
            raise
        if why is not None:
            database.close()
            raise psycopg.errors.ReadOnlySqlTransaction(why)
        return database

    def drop(self) -> None:
        """Close the connection: the next `get` makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def usable_after(self, error: Exception) -> bool:
        """Tell whether the connection can still be used after an error; if not, drop it."""
        current = self._connection
        # An error that is not the driver's own may have left a statement under way; a server that takes no writes may
        # have been replaced by another, and a session that began while it took none stays so.
        fit = isinstance(error, psycopg.Error) and not isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        if fit and current is not None and not current.closed:
            return True
        self.drop()
        return False
