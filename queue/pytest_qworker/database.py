"""A database for tests: created once a session, emptied after each test."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from qworker import App
from qworker.maintenance import Maintenance
from qworker.migrations import migrate

#: Attempts to empty the database while a node uses it.
ATTEMPTS = 5


@contextmanager
def temporary(server: str, schema: str) -> Iterator[str]:
    """Create a database with the schema, and drop it at the end; return its DSN."""
    with ExitStack() as stack:
        dsn = server or os.environ.get("QWORKER_TEST_DSN", "")
        if not dsn:
            from qworkerd.embedded import EmbeddedPostgres

            dsn = stack.enter_context(EmbeddedPostgres()).dsn
        # Each process of pytest-xdist has its own, and so do two sessions at once.
        name = sql.Identifier(f"qworker_test_{secrets.token_hex(6)}")
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            own = make_conninfo(dsn, dbname=name.as_string().strip('"'))
            with psycopg.connect(own) as conn:
                migrate(conn, schema)
            yield own
        finally:
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@contextmanager
def connected(app: App, dsn: str) -> Iterator[None]:
    """Connect an application to a database of tests, and delete what it leaves there."""
    before = app.dsn, app.pool.dsn
    app.close()
    app.dsn = app.pool.dsn = dsn
    try:
        yield
    finally:
        app.close()
        app.dsn, app.pool.dsn = before
        empty(dsn, app.schema)


def empty(dsn: str, schema: str) -> None:
    """Delete all jobs, keys, schedules and settings of queues."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for attempt in range(ATTEMPTS):
            try:
                Maintenance(schema).flush(conn)
                break
            except psycopg.errors.DeadlockDetected:  # a node runs, and locks tables in another order
                if attempt == ATTEMPTS - 1:
                    raise
