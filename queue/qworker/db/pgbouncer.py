"""Connections that lead through a pooler in transaction mode (PgBouncer): each transaction may meet another session."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus


def detect(connection: psycopg.Connection[Any]) -> None:
    """Prepare nothing on a connection if it leads through a pooler.

    A pooler makes up the process id that it gives its clients; this costs a round trip.
    """
    row = psycopg.Cursor(connection).execute("SELECT pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    if not connection.autocommit:
        connection.rollback()
    if row != (connection.info.backend_pid,):
        connection.prepare_threshold = None


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a pooler stands between: then nothing is prepared, and no notification comes."""
    return connection.prepare_threshold is None


def send_settings_with_each_statement(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Have each statement bring its settings along: those of the session are somebody else's.

    The server analyzes a statement of such a message when those before it have been executed, so the search_path that
    comes with it holds for its own names too.
    """
    told = (sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value) for name, value in settings.items())
    prefix = sql.SQL("SELECT {};\n").format(sql.SQL(", ").join(told)).as_string(connection)
    if connection.isolation_level is not None:
        # Before any query of the transaction; that of the settings is one.
        prefix = f"SET TRANSACTION ISOLATION LEVEL {connection.isolation_level.name.replace('_', ' ')};\n{prefix}"
    connection.cursor_factory = type("Courier", (SettingsCursor,), {"prefix": prefix})


class SettingsCursor(psycopg.ClientCursor[Any]):
    """Sends a statement and its settings as one message, which is one transaction, with the values in its text.

    Within a transaction they come along too: the BEGIN was somebody's who sent none.
    """

    prefix: ClassVar[str]

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute a statement, and be at its result."""
        options.pop("prepare", None)
        if self.connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            text = query.decode() if isinstance(query, bytes) else query
            super().execute((self.prefix + text).encode(), params, **options)
            while self.nextset():
                pass
        else:
            super().execute(query, params, **options)
        return self
