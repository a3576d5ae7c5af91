"""Resolves the DSN and opens the connections on which qworker runs its own statements."""

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
from qworker.errors import ConfigurationError

#: The variables of libpq that name a server or a database.
SERVER_VARIABLES = frozenset({"PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE"})
#: What to do if none of them is set, and no DSN.
UNNAMED = "nothing names the database: set $QWORKER_DSN or $DATABASE_URL, or libpq's PGHOST, PGDATABASE and so on"
_DIALECT = re.compile(r"^(postgres(?:ql)?)\+\w+://")
#: With these settings a broken network raises an error within seconds instead of hanging for minutes. tcp_user_timeout
#: is in milliseconds, all others are in seconds. A setting in the DSN takes precedence.
_TRANSPORT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# The statements rely on this level: they skip rows locked by other sessions and see what other sessions have committed.
_ISOLATION = "read committed"

# Sequential and bitmap scans are off because a statement is planned once, perhaps while the queue is empty. The same
# generic plan must still use the index when the table holds 400,000 jobs.
# The settings from "timezone" on fix the text format of values. They override those of the role and the database.
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

# Seconds that a statement may wait in PgBouncer for a server connection: the default of query_wait_timeout.
_PGBOUNCER_QUERY_WAIT = 120.0

# synchronous_commit is never off: if a server crash undid the commit that replaced a token, a write with the old token
# would be accepted. Behind PgBouncer (the backend's pid differs) the session is shared with other clients and is left
# unchanged. The search_path is not set yet when this statement runs, so every name is qualified.
_SESSION: LiteralString = """
SELECT pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) %(pid)s::pg_catalog.int4 AS pooled,
       pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' AS asynchronous_commit,
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

    A callable is called at each connect, so that rotated credentials take effect. SQLAlchemy's form
    "postgresql+psycopg://" is accepted.
    """
    given = dsn() if callable(dsn) else dsn
    text = given or os.environ.get("QWORKER_DSN") or os.environ.get("DATABASE_URL") or ""
    return _DIALECT.sub(r"\1://", text)


def is_unnamed(dsn: str) -> bool:
    """Return whether nothing names a server or a database, so that libpq tries a local socket and the user's name."""
    if os.environ.keys() & SERVER_VARIABLES:
        return False
    try:
        return not parse(dsn).keys() & {"host", "hostaddr", "port", "service", "dbname"}
    except ConfigurationError:
        return False


def conninfo(dsn: str, role: str) -> str:
    """Return a connection string with the parameters that all of qworker's connections use.

    Raises ConfigurationError if libpq cannot parse the DSN. The message contains no part of it.
    """
    given = parse(dsn)
    # Strings are read as UTF-8. This overrides the DSN and $PGCLIENTENCODING; the server converts.
    fixed = {"client_encoding": "UTF8", "application_name": session_name(given, role)}
    return make_conninfo("", **{**_TRANSPORT, **given, **fixed})


def session_name(given: Mapping[str, Any], role: str) -> str:
    """Return an application_name that ends in the role. Recovery finds the sessions of a dead process by this suffix.

    The application_name of the DSN comes first, shortened because the server keeps 63 bytes.
    """
    name = str(given.get("application_name") or "qworker")
    return f"{name[: max(0, 62 - len(role))]} {role}"


def connect(
    dsn: str, role: str, *, statement_timeout: float = 30.0, lock_timeout: float = 5.0, writable: bool = True
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection for qworker's own statements: in autocommit mode and with planner settings for queues.

    Timeouts are in seconds; 0 disables them. If the server does not answer within 1.5 times the statement timeout, the
    connection is closed. writable: False makes every transaction read-only. Raises psycopg.OperationalError if the
    server cannot be reached.
    """
    settings = _SETTINGS | {
        "statement_timeout": f"{int(statement_timeout * 1000)}ms",
        "lock_timeout": f"{int(lock_timeout * 1000)}ms",
    }
    if not writable:
        # Behind PgBouncer, the settings are sent in the transaction that they are for.
        settings |= {"default_transaction_read_only": "on", "transaction_read_only": "on"}
    connection = DeadlineConnection.connect(conninfo(dsn, role), autocommit=True)
    connection.answer_timeout = 1.5 * statement_timeout or inf
    # Prepare at the first execution; by default psycopg would plan the first five executions separately.
    connection.prepare_threshold = 0
    try:
        parameters = {"pid": connection.info.backend_pid, "settings": Jsonb(settings)}
        row = connection.execute(_SESSION, parameters, prepare=False).fetchone()
        pooled, asynchronous_commit, isolation, _ = row or (True, False, _ISOLATION, 0)
        if pooled:
            connection.prepare_threshold = None
            connection.answer_timeout += _PGBOUNCER_QUERY_WAIT
            if isolation != _ISOLATION:
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            pgbouncer.send_settings_with_each_statement(
                connection, settings | {"synchronous_commit": "on"} if asynchronous_commit else settings
            )
    except BaseException:
        connection.close()
        raise
    return connection


def read_only(connection: psycopg.Connection[Any]) -> str | None:
    """Return the reason why a connection is read-only, or None if it accepts writes. Costs a round trip."""
    standby, refusing = connection.execute(_READ_ONLY, prepare=False).fetchone() or (False, False)
    if standby:
        return "the server is a standby and accepts no writes"
    return "the session is read-only (default_transaction_read_only)" if refusing else None
