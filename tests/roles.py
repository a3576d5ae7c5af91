"""The roles of docs/security.md, made as the page says."""

import re
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
ROLES = ("producer", "worker", "viewer", "operator")


def grants(role: str) -> str:
    """Return the SQL that the page gives for a role."""
    (text,) = re.findall(rf"```sql\n(-- {role}\n.*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def create(conn: psycopg.Connection[Any]) -> None:
    """Create each role with what the page grants it in this database."""
    for role in ROLES:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
        conn.execute(grants(role).encode())


def drop(conn: psycopg.Connection[Any]) -> None:
    """Drop the roles; roles belong to the whole server."""
    conn.execute(f"DROP OWNED BY {', '.join(ROLES)}".encode())
    conn.execute(f"DROP ROLE {', '.join(ROLES)}".encode())


def login(dsn: str, role: str) -> str:
    """Return the connection string for a role."""
    return make_conninfo(dsn, user=role, password="pw")
