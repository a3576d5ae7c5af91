"""Statements executed without a psycopg cursor: the INSERT of a single job, and a worker's claim and acknowledgement.

psycopg's cursors can adapt, prepare and describe any statement. This takes as much CPU time as PostgreSQL needs for
the INSERT. Here the statement is prepared once for each connection, its parameters are sent as text, and its result
is returned in binary.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, LiteralString, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import numbered

#: SQLSTATE of a prepared statement that exists already, that does not exist, or whose tables have changed.
_DUPLICATE, _UNKNOWN, _OUTDATED = b"42P05", b"26000", b"0A000"

#: A session that loses the statement more often than this is one of a pooler's, and a cursor executes it from then on.
#: A loss counts if the statement was prepared less than LOSS_INTERVAL seconds before it.
MAX_LOSSES, LOSS_INTERVAL = 5, 60.0

T = TypeVar("T")

#: The values of a row, as the server sends them in binary.
Row = list[bytes | None]


class PreparedStatement:
    """A statement that returns rows, for connections that are used by qworker alone."""

    def __init__(self, statement: LiteralString, *, exclusive: bool = True) -> None:
        """exclusive: False for connections of others, where a cursor executes the statement."""
        self._statement = statement
        self._exclusive = exclusive
        text, self._names = numbered(statement)
        self._text = text.encode()
        # The name is a hash of the text: a statement prepared under this name has this text.
        self._name = b"qworker_" + hashlib.sha256(self._text).hexdigest()[:16].encode()
        #: The connections on which the statement is prepared, or cannot be used.
        self._ready: WeakKeyDictionary[psycopg.Connection[Any], _Preparation] = WeakKeyDictionary()
        self._loads = Transformer(psycopg.adapters)

    def send(self, connection: psycopg.Connection[Any], values: Sequence[bytes | None]) -> Row | None:
        """Return the single row, an empty list if there is none, or None if the statement needs a cursor.

        Values are UTF-8 text in the order in which the statement first names them. Raises psycopg.Error as a cursor
        would.
        """
        result = self._execute(connection, values)
        if result is None:
            return None
        return [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []

    def fetch(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        parameters: Mapping[str, object],
        make_row: Callable[[Sequence[Any]], T],
    ) -> list[T]:
        """Return all rows, each made from its values; uses a cursor if the statement cannot be prepared.

        Not thread-safe.

        Raises psycopg.Error as a cursor would.
        """
        values = [parameters[name] for name in self._names]
        result = self._execute(connection, [None if value is None else str(value).encode() for value in values])
        if result is None:
            return [make_row(row) for row in connection.execute(self._statement, parameters)]
        self._loads.set_pgresult(result)
        return self._loads.load_rows(0, result.ntuples, make_row)

    def _execute(self, connection: psycopg.Connection[Any], values: Sequence[bytes | None]) -> PGresult | None:
        """Return the result, or None if the statement cannot be prepared on this connection and was not executed.

        Raises psycopg.Error if the statement fails.
        """
        ready = self._ready.get(connection)
        if ready is None:
            ready = self._ready[connection] = _Preparation(usable=self._prepare(connection))
        while ready.usable:
            connection.pgconn.send_query_prepared(self._name, values, result_format=Format.BINARY)
            # The commit follows the rows: the error of a deferred trigger is a second result.
            result: PGresult = connection.wait(execute(connection.pgconn))[-1]
            if result.status == ExecStatus.TUPLES_OK:
                return result
            code = _code(result)
            if code == _UNKNOWN and connection.pgconn.transaction_status == TransactionStatus.IDLE:
                # psycopg sends DEALLOCATE ALL after a rollback. Behind a pooler the next transaction may run in another
                # session.
                ready.usable = ready.lose() and self._prepare(connection)
            elif code in {_UNKNOWN, _OUTDATED}:
                ready.usable = False
            else:
                raise error_from_result(result)
        return None

    def _prepare(self, connection: psycopg.Connection[Any]) -> bool:
        if not self._exclusive or is_pooled(connection):
            return False
        if connection.pgconn.parameter_status(b"client_encoding") != b"UTF8":
            return False
        connection.pgconn.send_prepare(self._name, self._text)
        (result,) = connection.wait(execute(connection.pgconn))
        return bool(result.status == ExecStatus.COMMAND_OK or _code(result) == _DUPLICATE)


class _Preparation:
    """Whether a statement is prepared on a connection."""

    __slots__ = ("_losses", "_since", "usable")

    def __init__(self, *, usable: bool) -> None:
        #: Whether the statement is prepared; False if it cannot be used on the connection.
        self.usable = usable
        self._since, self._losses = monotonic(), 0

    def lose(self) -> bool:
        """Count a loss; return whether to prepare the statement again."""
        now = monotonic()
        self._losses = self._losses + 1 if now - self._since < LOSS_INTERVAL else 1
        self._since = now
        return self._losses <= MAX_LOSSES


def _code(result: PGresult) -> bytes | None:
    return result.error_field(DiagnosticField.SQLSTATE)
