"""Finds triggers and rules of a user that may suppress what qworker writes."""

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from qworker.db.statements import DEFAULT_SCHEMA, load


def suppressing_triggers(
    conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA, relation: str | None = None
) -> list[str]:
    """Describe each trigger and rule on the tables of the schema, or on one of them, that may suppress a write."""
    rows = psycopg.Cursor(conn, row_factory=tuple_row).execute(load("admin", schema)["suppressing"]).fetchall()
    return [
        f"{kind} {name!r} on {schema}.{table} may suppress writes of qworker: {why}"
        for kind, name, table, why in rows
        if relation in (None, table)
    ]
