"""Says in qworker's words what the driver's errors mean, once, where its statements leave this library."""

import re
from typing import Any

import psycopg

from qworker.connection import redact
from qworker.errors import DatabaseUnavailable, QworkerError, Refused, SchemaError
from qworker.statements import DEFAULT_SCHEMA

_LACKING = (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction)


def explain(error: BaseException, conn: psycopg.Connection[Any], schema: str, *, own: bool) -> QworkerError | None:
    """Return the error to raise instead; None when the driver's says it best, or the caller's framework knows it.

    own: the connection is one of ours, not the caller's.
    """
    if isinstance(error, psycopg.errors.UndefinedColumn) or (
        # What another's trigger lacks is not ours; "operator does not exist" has a function's SQLSTATE.
        isinstance(error, _LACKING) and re.search(rf'"{schema}"|\b{schema}\.', error.diag.message_primary or "")
    ):
        return SchemaError(
            f"schema {schema!r} in database {conn.info.dbname!r} is missing or older than this code "
            f"({error.diag.message_primary}): run `{command('migrate', schema)}`"
        )
    if own and isinstance(error, psycopg.OperationalError) and conn.closed:
        return DatabaseUnavailable(f"the database hung up: {reason(error)}")
    return None


def suppressed(task: str, count: int = 1) -> Refused:
    """Return the error for jobs whose INSERT has passed without an error and without a row."""
    jobs = "a job" if count == 1 else f"{count:,} jobs"
    return Refused(
        f"the database did not store {jobs} of task {task!r}: a trigger BEFORE INSERT or a rule of the table job "
        "suppresses the row; let it raise an exception where a job may not be enqueued"
    )


def command(verb: str, schema: str) -> str:
    """Return the command line that does something to the schema."""
    return f"qworker db {verb}" + ("" if schema == DEFAULT_SCHEMA else f" --schema {schema}")


def reason(error: BaseException) -> str:
    """Return the driver's message in one line, without passwords."""
    return redact(str(error)).strip().replace("\n", "; ")
