"""Support for PgBouncer in transaction mode, where each transaction may run in a different session of the server."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus


def detect(connection: psycopg.Connection[Any]) -> None:
    """Disable prepared statements on a connection that goes through a pooler. Costs a round trip.

    A pooler gives its clients an invented backend pid, which differs from that of the server process.
    """
    row = psycopg.Cursor(connection).execute("SELECT pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    if not connection.autocommit:
        connection.rollback()
    if row != (connection.info.backend_pid,):
        connection.prepare_threshold = None


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection goes through a pooler; it then has no prepared statements and no notifications."""
    return connection.prepare_threshold is None


def send_settings_with_each_statement(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Send the settings in the same message as each statement, because the session is shared with other clients.

    The server analyzes each statement of a multi-statement message after it has executed the ones before. The
    search_path that comes first therefore applies to the names in the statement itself.
    """
    calls = (sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value) for name, value in settings.items())
    prefix = sql.SQL("SELECT {};\n").format(sql.SQL(", ").join(calls)).as_string(connection)
    if connection.isolation_level is not None:
        # It must come before any query of the transaction, and the one with the settings is a query.
        prefix = f"SET TRANSACTION ISOLATION LEVEL {connection.isolation_level.name.replace('_', ' ')};\n{prefix}"
    connection.cursor_factory = type("BoundSettingsCursor", (SettingsCursor,), {"prefix": prefix})


class SettingsCursor(psycopg.ClientCursor[Any]):
    """Sends a statement and its settings as one message, which is one transaction, with the values as literals.

    Inside a transaction block the settings are sent too, because the BEGIN was sent without them.
    """

    prefix: ClassVar[str]

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute a statement and select its result, which is the last of the message."""
        options.pop("prepare", None)
        if self.connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            text = query.decode() if isinstance(query, bytes) else query
            super().execute((self.prefix + text).encode(), params, **options)
            while self.nextset():
                pass
        else:
            super().execute(query, params, **options)
        return self
