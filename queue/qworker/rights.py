"""Tells whether a role may do what a node does."""

from typing import Any

import psycopg

from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.errors import SchemaError


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError, naming what is missing, unless the role of a connection of ours may run a node."""
    if lacking := [row[0] for row in conn.execute(load("rights", schema)["lacking"])]:
        raise SchemaError(
            f"role {conn.info.user!r} lacks rights in schema {schema!r} of database {conn.info.dbname!r}: "
            f"{', '.join(lacking)}; grant what docs/security.md lists for a worker, or run as the role that migrated"
        )
