"""Where the database is, and how the framework's own connections to it are set up."""

import os
import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from qworker.db import pgbouncer
from qworker.db.deadline import DeadlineConnection
from qworker.db.dsn import parse
from qworker.db.statements import PINNED

_DIALECT = re.compile(r"^(postgres(?:ql)?)\+\w+://")
#: What makes a broken network an error within seconds instead of a hang of minutes (seconds, except milliseconds where
#: libpq wants them). A setting in the DSN wins.
_TRANSPORT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# What the statements are written for: they skip rows that others have locked, and see what others have committed.
_ISOLATION = "read committed"

# Sequential and bitmap scans are off: a statement planned while the queue was empty must still walk the index after
# 400,000 jobs have come. One generic plan serves for ever, whatever the statistics said.
# From "timezone" on: how values are read and written as text, whatever is set for the role or the database.
_SETTINGS = {
    "search_path": PINNED,
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "idle_in_transaction_session_timeout": "60s",
    "default_transaction_isolation": _ISOLATION,
    "client_connection_check_interval": "2s",
}

# What a statement may wait for in a pgbouncer before a server has seen it (seconds): PgBouncer's query_wait_timeout.
_QUEUED = 120.0

# Commits are as durable as the server makes them, and never less than flushed: a token that came back after a crash
# would let a stale write pass. The session is left as it is where a pgbouncer stands between, as it is somebody else's.
# The search_path is not ours yet here: every name that it could lead elsewhere is qualified.
_SESSION: LiteralString = """
SELECT pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) %(pid)s::pg_catalog.int4 AS pooled,
       pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' AS hasty,
       pg_catalog.current_setting('transaction_isolation') AS isolation,
       (SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.value, false))
          FROM (SELECT * FROM pg_catalog.jsonb_each_text(%(settings)s)
                 UNION ALL
                SELECT 'synchronous_commit', 'on'
                 WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off') AS s (name, value)
         WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %(pid)s::pg_catalog.int4)
"""

_READ_ONLY: LiteralString = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'
"""


def resolve_dsn(dsn: str | Callable[[], str] | None = None) -> str:
    """Return the connection string: given > $QWORKER_DSN > $DATABASE_URL > "" (libpq's own PG* variables).

    A callable is asked at each connect, so that rotated credentials are seen. "postgresql+psycopg://", as SQLAlchemy
    writes it, is understood.
    """
    given = dsn() if callable(dsn) else dsn
    text = given or os.environ.get("QWORKER_DSN") or os.environ.get("DATABASE_URL") or ""
    return _DIALECT.sub(r"\1://", text)


def conninfo(dsn: str, role: str) -> str:
    """Complete a connection string with what every connection of ours carries.

    Raises ConfigurationError when libpq cannot read it; the message holds no part of it.
    """
    given = parse(dsn)
    # Texts are read as UTF-8, whatever the DSN or $PGCLIENTENCODING says; the server converts.
    ours = {"client_encoding": "UTF8", "application_name": session_name(given, role)}
    return make_conninfo("", **{**_TRANSPORT, **given, **ours})


def session_name(given: Mapping[str, Any], role: str) -> str:
    """Return an application_name that ends in the role: by its end the sessions of a dead process are found.

    A name of the DSN's own stands before it; the server keeps 63 bytes in all.
    """
    name = str(given.get("application_name") or "qworker")
    return f"{name[: max(0, 62 - len(role))]} {role}"


def connect(
    dsn: str, role: str, *, statement_timeout: float = 30.0, lock_timeout: float = 5.0
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection for the framework's own statements: autocommit, and planned for queues.

    Timeouts are in seconds, 0 for none; when no answer comes for half as long again as a statement may take, the
    connection is closed. Raises psycopg.OperationalError when the server cannot be reached.
    """
    settings = _SETTINGS | {
        "statement_timeout": f"{int(statement_timeout * 1000)}ms",
        "lock_timeout": f"{int(lock_timeout * 1000)}ms",
    }
    connection = DeadlineConnection.connect(conninfo(dsn, role), autocommit=True)
    connection.answer_timeout = 1.5 * statement_timeout or inf
    # Planned once, used until the connection ends: five trial runs would each plan anew.
    connection.prepare_threshold = 0
    try:
        parameters = {"pid": connection.info.backend_pid, "settings": Jsonb(settings)}
        row = connection.execute(_SESSION, parameters, prepare=False).fetchone()
        pooled, hasty, isolation, _ = row or (True, False, _ISOLATION, 0)
        if pooled:
            connection.prepare_threshold = None
            connection.answer_timeout += _QUEUED
            if isolation != _ISOLATION:
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            pgbouncer.send_settings_with_each_statement(
                connection, settings | {"synchronous_commit": "on"} if hasty else settings
            )
    except BaseException:
        connection.close()
        raise
    return connection


def read_only(connection: psycopg.Connection[Any]) -> str | None:
    """Tell why a server takes no writes on a connection, None if it takes them; costs a round trip."""
    standby, refusing = connection.execute(_READ_ONLY, prepare=False).fetchone() or (False, False)
    if standby:
        return "the server is a standby and takes no writes"
    return "the session is read-only (default_transaction_read_only)" if refusing else None
