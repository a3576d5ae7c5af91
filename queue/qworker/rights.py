"""Checks whether a role has the privileges that a node needs."""

from typing import Any

import psycopg
from psycopg.rows import scalar_row

from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.errors import SchemaError


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError, naming the missing privileges, unless the connection's role may run a node."""
    if lacking := conn.cursor(row_factory=scalar_row).execute(load("rights", schema)["lacking"]).fetchall():
        raise SchemaError(
            f"role {conn.info.user!r} lacks privileges in schema {schema!r} of database {conn.info.dbname!r}: "
            f"{', '.join(lacking)}; grant what docs/security.md lists for a worker, or run as the owner of the schema"
        )
