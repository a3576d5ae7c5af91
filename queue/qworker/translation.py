"""Says in qworker's words what the driver's errors mean, once, where its statements leave this library."""

from typing import Any

import psycopg

from qworker.connection import redact
from qworker.errors import DatabaseUnavailable, QworkerError, SchemaError
from qworker.statements import DEFAULT_SCHEMA

_LACKING = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


def explain(error: BaseException, conn: psycopg.Connection[Any], schema: str, *, own: bool) -> QworkerError | None:
    """Return the error to raise instead; None when the driver's says it best, or the caller's framework knows it.

    own: the connection is one of ours, not the caller's.
    """
    if isinstance(error, _LACKING):
        return SchemaError(
            f"schema {schema!r} in database {conn.info.dbname!r} is missing or older than this code "
            f"({error.diag.message_primary}): run `{command('migrate', schema)}`"
        )
    if own and isinstance(error, psycopg.OperationalError) and conn.closed:
        return DatabaseUnavailable(f"the database hung up: {reason(error)}")
    return None


def command(verb: str, schema: str) -> str:
    """Return the command line that does something to the schema."""
    return f"qworker db {verb}" + ("" if schema == DEFAULT_SCHEMA else f" --schema {schema}")


def reason(error: BaseException) -> str:
    """Return the driver's message in one line, without passwords."""
    return redact(str(error)).strip().replace("\n", "; ")
