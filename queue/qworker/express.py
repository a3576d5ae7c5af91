"""One statement on the short way: the INSERT that web processes send all the time.

psycopg's cursors adapt, prepare and describe anything, which takes as much processor time as PostgreSQL needs for the
INSERT. Here the statement is prepared once for a connection, sent with values that are text already, and answered in
binary.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from psycopg.generators import execute
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult

#: SQLSTATE of a prepared statement that is there already, and of one that is not.
_DUPLICATE, _UNKNOWN = b"42P05", b"26000"

#: The values of a row, as the server sends them in binary.
Row = list[bytes | None]


class Express:
    """A statement that returns one row, for connections that nobody else uses; its parameters are $1, $2, and so on."""

    def __init__(self, statement: LiteralString) -> None:
        self._text = statement.encode()
        # Whoever has prepared this name has prepared this text.
        self._name = b"qworker_" + hashlib.sha256(self._text).hexdigest()[:16].encode()
        #: Whether the statement is prepared; False: the connection has refused it.
        self._ready: WeakKeyDictionary[psycopg.Connection[Any], bool] = WeakKeyDictionary()

    def send(self, connection: psycopg.Connection[Any], values: Sequence[bytes | None]) -> Row | None:
        """Return the row; None when the server has refused the statement, which psycopg can say better.

        Values are text in UTF-8. Raises psycopg.OperationalError when the connection is lost.
        """
        ready = self._ready.get(connection)
        if ready is None:
            ready = self._ready[connection] = self._prepare(connection)
        if not ready:
            return None
        connection.pgconn.send_query_prepared(self._name, values, result_format=Format.BINARY)
        (result,) = connection.wait(execute(connection.pgconn))
        if result.status != ExecStatus.TUPLES_OK:
            # Behind a pooler the next transaction may meet a server that knows nothing of the statement.
            self._ready[connection] = _code(result) != _UNKNOWN
            return None
        return [result.get_value(0, column) for column in range(result.nfields)]

    def _prepare(self, connection: psycopg.Connection[Any]) -> bool:
        if connection.pgconn.parameter_status(b"client_encoding") != b"UTF8":
            return False
        connection.pgconn.send_prepare(self._name, self._text)
        (result,) = connection.wait(execute(connection.pgconn))
        return bool(result.status == ExecStatus.COMMAND_OK or _code(result) == _DUPLICATE)


def _code(result: PGresult) -> bytes | None:
    return result.error_field(DiagnosticField.SQLSTATE)
