"""Tables without constraints: rows may hold whatever their types allow."""

from typing import Any

import psycopg


def drop_constraints(conn: psycopg.Connection[Any]) -> None:
    """Drop the CHECKs of tables and domains."""
    for table, name in conn.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
        " AND connamespace = 'qworker'::regnamespace AND coninhcount = 0"
    ).fetchall():
        conn.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'.encode())
    for domain, name in conn.execute(
        "SELECT contypid::regtype::text, conname FROM pg_constraint"
        " WHERE contypid <> 0 AND connamespace = 'qworker'::regnamespace"
    ).fetchall():
        conn.execute(f'ALTER DOMAIN {domain} DROP CONSTRAINT "{name}"'.encode())
