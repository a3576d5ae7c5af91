"""Translates psycopg's errors into qworker's, in the one place where they leave this library."""

import re
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField

from qworker import program
from qworker.db.drivers import Caller, DriverConnection
from qworker.db.dsn import ambiguity, display
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import DatabaseUnavailable, InvalidOperation, QworkerError, SchemaError
from qworker.redaction import shorten

_MISSING = (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction)
#: The same, and undefined_column, by SQLSTATE.
_MISSING_CODES = ("3F000", "42P01", "42883", "42703")
#: raise_exception and lock_not_available, with which the SQL function enqueue_jobs raises errors that begin with this.
_RAISED, _BUSY, _OURS = "P0001", "55P03", "qworker: "
#: Classes of SQLSTATE: data exception, integrity constraint violation.
_ABOUT_VALUES = ("22", "23")
#: The fields of a server error that are kept when DETAIL and CONTEXT are removed.
_KEPT_FIELDS = {
    DiagnosticField.SEVERITY: "severity",
    DiagnosticField.SEVERITY_NONLOCALIZED: "severity_nonlocalized",
    DiagnosticField.SQLSTATE: "sqlstate",
    DiagnosticField.MESSAGE_PRIMARY: "message_primary",
    DiagnosticField.MESSAGE_HINT: "message_hint",
    DiagnosticField.SCHEMA_NAME: "schema_name",
    DiagnosticField.TABLE_NAME: "table_name",
    DiagnosticField.COLUMN_NAME: "column_name",
    DiagnosticField.DATATYPE_NAME: "datatype_name",
    DiagnosticField.CONSTRAINT_NAME: "constraint_name",
}


def translate(
    error: BaseException, conn: Caller | psycopg.AsyncConnection[Any], schema: str, *, own: bool
) -> BaseException | None:
    """Return the error to raise instead, or None to leave the driver's error as it is.

    own: the connection belongs to qworker's pool, not to the caller. If the result is not a QworkerError, it is a copy
    of the driver's error without the values of the rejected job. Raise it without its cause, which still contains them.
    """
    if isinstance(conn, DriverConnection):
        return _translate_driver(error, conn, schema)
    if isinstance(error, psycopg.errors.UndefinedColumn) or (
        # An object missing in a user's trigger is not ours; "operator does not exist" has the SQLSTATE of a function.
        isinstance(error, _MISSING) and re.search(rf'"{schema}"|\b{schema}\.', error.diag.message_primary or "")
    ):
        return _outdated(f"{schema!r} in database {conn.info.dbname!r}", error.diag.message_primary, schema)
    if own and isinstance(error, psycopg.OperationalError) and conn.closed:
        return DatabaseUnavailable(f"the database closed the connection: {reason(error)}")
    if isinstance(error, psycopg.Error) and _shows_values(error, schema, own=own):
        return _without_values(error, _hint(error, schema))
    return None


def _translate_driver(error: BaseException, conn: DriverConnection, schema: str) -> BaseException | None:
    """Do the same for an error of psycopg2 or pg8000, where jobs are stored by the SQL function."""
    fields = conn.diagnostics(error)
    code, message = fields.get("C", ""), fields.get("M", "")
    if code in _MISSING_CODES and re.search(rf'"{schema}"|\b{schema}\.', message):
        return _outdated(repr(schema), message, schema)
    if code == _RAISED and message.startswith(_OURS):
        return InvalidOperation(message.removeprefix(_OURS))
    if code == _BUSY and message.startswith(_OURS):
        return QworkerError(message.removeprefix(_OURS))
    if code[:2] in _ABOUT_VALUES and fields.get("s") == schema:
        return conn.without_details(error)
    return None


def _outdated(where: str, message: str | None, schema: str) -> SchemaError:
    return SchemaError(
        f"schema {where} is missing or older than this code ({message}): run `{command('migrate', schema)}`"
    )


def _shows_values(error: psycopg.Error, schema: str, *, own: bool) -> bool:
    """Return whether an error contains values of a job: "Failing row contains (...)", "COPY job, line 1: ..."."""
    diag = error.diag
    if not diag.message_detail and not diag.context:
        return False
    if "COPY job" in (diag.context or ""):
        return True
    # On the caller's connection the error may come from the iterable of rows and concern the caller's own tables.
    ours = diag.schema_name == schema if diag.schema_name else own
    return ours and (error.sqlstate or "")[:2] in _ABOUT_VALUES


def _hint(error: psycopg.Error, schema: str) -> str | None:
    """Return the server's hint, or qworker's for an id that was assigned again."""
    if error.diag.constraint_name == "job_pkey":
        return f"the sequence job_id_seq is behind the ids in use: run `{command('repair', schema)}`"
    return error.diag.message_hint


def _without_values(error: psycopg.Error, hint: str | None) -> psycopg.Error:
    info: dict[int, bytes | None] = {
        field: value.encode()
        for field, name in _KEPT_FIELDS.items()
        if (value := getattr(error.diag, name)) is not None
    }
    message = str(error.diag.message_primary)
    return type(error)(message if not hint else f"{message}\nHINT:  {hint}", info=info)


def suppressed(task: str, count: int = 1) -> InvalidOperation:
    """Return the error for jobs whose INSERT succeeded but stored no row."""
    jobs = "a job" if count == 1 else f"{count:,} jobs"
    return InvalidOperation(
        f"the database did not store {jobs} of task {task!r}: a BEFORE INSERT trigger or a rule on the table job "
        "suppressed the row; to reject a job, raise an exception in the trigger"
    )


def command(verb: str, schema: str) -> str:
    """Return the command line of a `qworker db` command for this schema, or of the framework's own."""
    own = program.migrate_command(schema) if verb == "migrate" else None
    return own or program.command(f"db {verb}") + ("" if schema == DEFAULT_SCHEMA else f" --schema {schema}")


def reason(error: BaseException) -> str:
    """Return psycopg's message on one line, without passwords."""
    return "; ".join(line.strip() for line in shorten(str(error).strip()).splitlines())


def unreachable(dsn: str, error: psycopg.OperationalError) -> DatabaseUnavailable:
    """Return the error to raise if no connection could be made, with psycopg's error as its cause.

    If the connection string is ambiguous, parts of it may belong to the password. The error then has no cause.
    """
    if problem := ambiguity(dsn):
        return DatabaseUnavailable(f"no connection to the database {display(dsn)}; {problem}")
    where = display(dsn) if dsn else "of libpq's PG* variables ($QWORKER_DSN is not set)"
    found = DatabaseUnavailable(f"no connection to the database {where}: {reason(error)}")
    found.__cause__ = error
    return found
