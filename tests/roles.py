"""A role of each kind, with what `qworker db grant` grants it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from qworker import rights
from qworker.migrations import migrate
from qworker.rights import Kind
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database

ROLES = tuple(Kind)


def create(conn: psycopg.Connection[Any]) -> None:
    """Create each role with what its kind needs in this database."""
    for role in ROLES:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
        rights.grant(conn, role, [role])


def drop(conn: psycopg.Connection[Any]) -> None:
    """Drop the roles; roles belong to the whole server."""
    conn.execute(f"DROP OWNED BY {', '.join(ROLES)}".encode())
    conn.execute(f"DROP ROLE {', '.join(ROLES)}".encode())


@contextmanager
def guarded_database(server: EmbeddedPostgres) -> Iterator[Database]:
    """Yield a migrated database with the roles."""
    database = Database.create(server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        create(conn)
    yield database
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        drop(conn)
    database.drop(server)


def login(dsn: str, role: str) -> str:
    """Return the connection string for a role."""
    return make_conninfo(dsn, user=role, password="pw")
