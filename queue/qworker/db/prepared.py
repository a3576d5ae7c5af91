"""One statement on the short way: the INSERT that web processes send all the time, and what workers send per batch.

psycopg's cursors adapt, prepare and describe anything, which takes as much processor time as PostgreSQL needs for the
INSERT. Here the statement is prepared once for a connection, sent with values that are text already, and answered in
binary.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult

from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import numbered

#: SQLSTATE of a prepared statement that is there already, of one that is not, and of one whose tables have changed.
_DUPLICATE, _UNKNOWN, _OUTDATED = b"42P05", b"26000", b"0A000"

#: The values of a row, as the server sends them in binary.
Row = list[bytes | None]


class PreparedStatement:
    """A statement that returns rows, for connections that nobody else uses."""

    def __init__(self, statement: LiteralString) -> None:
        self._statement = statement
        text, self._names = numbered(statement)
        self._text = text.encode()
        # Whoever has prepared this name has prepared this text.
        self._name = b"qworker_" + hashlib.sha256(self._text).hexdigest()[:16].encode()
        #: Whether the statement is prepared; False: the connection has refused it.
        self._ready: WeakKeyDictionary[psycopg.Connection[Any], bool] = WeakKeyDictionary()
        self._loads = Transformer(psycopg.adapters)

    def send(self, connection: psycopg.Connection[Any], values: Sequence[bytes | None]) -> Row | None:
        """Return the only row, empty if there is none; None when the statement has to take the long way.

        Values are text in UTF-8, in the order in which the statement first names them. Raises psycopg.Error as a cursor
        would.
        """
        result = self._execute(connection, values)
        if result is None:
            return None
        return [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []

    def fetch(
        self, connection: psycopg.Connection[tuple[Any, ...]], parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        """Return all rows, on the long way where the short one is closed. One thread at a time.

        Raises psycopg.Error as a cursor would.
        """
        result = self._execute(connection, [str(parameters[name]).encode() for name in self._names])
        if result is None:
            return connection.execute(self._statement, parameters).fetchall()
        self._loads.set_pgresult(result)
        return self._loads.load_rows(0, result.ntuples, tuple)

    def _execute(self, connection: psycopg.Connection[Any], values: Sequence[bytes | None]) -> PGresult | None:
        """Return the rows; None when the statement cannot be executed there, and was not.

        Raises psycopg.Error when the server refuses it.
        """
        ready = self._ready.get(connection)
        if ready is None:
            ready = self._ready[connection] = self._prepare(connection)
        if not ready:
            return None
        connection.pgconn.send_query_prepared(self._name, values, result_format=Format.BINARY)
        # The commit comes after the rows: an error of a deferred trigger is a second result.
        result: PGresult = connection.wait(execute(connection.pgconn))[-1]
        if result.status == ExecStatus.TUPLES_OK:
            return result
        if _code(result) in {_UNKNOWN, _OUTDATED}:
            # Behind a pooler the next transaction may meet a server that knows nothing of the statement.
            self._ready[connection] = False
            return None
        raise error_from_result(result)

    def _prepare(self, connection: psycopg.Connection[Any]) -> bool:
        if is_pooled(connection):
            return False
        if connection.pgconn.parameter_status(b"client_encoding") != b"UTF8":
            return False
        connection.pgconn.send_prepare(self._name, self._text)
        (result,) = connection.wait(execute(connection.pgconn))
        return bool(result.status == ExecStatus.COMMAND_OK or _code(result) == _DUPLICATE)


def _code(result: PGresult) -> bytes | None:
    return result.error_field(DiagnosticField.SQLSTATE)
