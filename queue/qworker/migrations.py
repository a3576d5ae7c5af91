"""Migrates the schema to the version that this code needs, and checks whether it has it."""

import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL

from qworker.db.errors import command
from qworker.db.statements import DEFAULT_SCHEMA, PINNED, load, qualify
from qworker.errors import ConfigurationError, SchemaError
from qworker.job import to_datetime

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_NEEDS = re.compile(r"^-- needs code: (\d+)$", re.MULTILINE)
#: First half of the advisory lock's key; the second is the schema's name.
_LOCK = int.from_bytes(b"qwkr")


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered migration, and whether it has been applied to a database."""

    #: Its number, with which the file name begins.
    number: int
    #: The rest of the file name.
    name: str
    #: The oldest compatible code, as the number of the highest migration that it ships.
    needs_code: int
    #: When it was applied; None if it was not.
    applied_at: datetime | None = None
    #: Whether this code ships it. If it does not, the migration comes from newer code, and only its name is known.
    shipped: bool = True

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


@cache
def shipped() -> tuple[Migration, ...]:
    """Return the migrations that this code ships, in order."""
    found = []
    for file in files("qworker").joinpath("sql").iterdir():
        if match := _FILE.fullmatch(file.name):
            number = int(match[1])
            needs = _NEEDS.search(file.read_text(encoding="utf-8"))
            found.append(Migration(number=number, name=match[2], needs_code=int(needs[1]) if needs else number))
    return tuple(sorted(found, key=lambda migration: migration.number))


def migrate(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Apply the missing migrations, each in a separate transaction; return their names.

    Concurrent calls are safe: the others wait and then find nothing to do. The role needs the CREATE privilege on the
    database, or on the schema if it exists. Raises SchemaError if the privilege is missing, and ConfigurationError if
    the name of the schema is a reserved word.
    """
    return [str(migration) for migration in shipped() if apply(conn, migration, schema)]


def apply(conn: psycopg.Connection[Any], migration: Migration, schema: str = DEFAULT_SCHEMA) -> bool:
    """Apply one migration unless it has been applied; return whether it was missing. Raises as `migrate` does."""
    check_encoding(conn)
    sql = load("migrations", schema)
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    try:
        with conn.transaction():
            # Defaults, views and function bodies stay bound to the objects found by this search_path.
            ((path,),) = cursor.execute(sql["path"])
            cursor.execute(sql["set_path"], {"path": PINNED})
            _prepare(cursor, schema)
            missing = cursor.execute(sql["find"], {"number": migration.number}).fetchone() is None
            if missing:
                cursor.execute(sql_of(migration, schema))
                cursor.execute(sql["record"], _fields(migration))
            cursor.execute(sql["set_path"], {"path": path})  # the caller's transaction may continue
    except psycopg.errors.SyntaxError as error:
        raise ConfigurationError(
            f"invalid schema name {schema!r}: it is a reserved word of SQL ({error.diag.message_primary}); "
            "choose another name"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"role {conn.info.user!r} may not create schema {schema!r} in database {conn.info.dbname!r} "
            f"({error.diag.message_primary}): run as the database's owner, GRANT CREATE ON DATABASE, or have its "
            f"administrator run the output of `{command('sql', schema)}`"
        ) from error
    return missing


def status(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[Migration]:
    """Return all migrations known to this code or to the database, in order."""
    known = {migration.number: migration for migration in shipped()}
    for number, name, needs_code, applied_at in _applied(conn, schema):
        known[number] = Migration(
            number=number, name=name, needs_code=needs_code, applied_at=to_datetime(applied_at), shipped=number in known
        )
    return [known[number] for number in sorted(known)]


def script(schema: str = DEFAULT_SCHEMA, after: int = 0) -> str:
    """Return the SQL of the migrations after a number, including the rows that `migrate` would record."""
    sql = load("migrations", schema)
    parts = [f"{sql['script_begin']};", script_prepare(schema)]
    for migration in shipped():
        if migration.number > after:
            parts += script_of(migration, schema)
    return "\n\n".join([*parts, sql["script_end"]]) + ";\n"


def script_prepare(schema: str = DEFAULT_SCHEMA) -> str:
    """Return the SQL that precedes the migrations in their transaction."""
    first, second = lock_key(schema)
    return SQL(load("migrations", schema)["script_prepare"]).format(first=first, second=second).as_string() + ";"


def script_of(migration: Migration, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Return the SQL of one migration, and that which records it."""
    record = SQL(load("migrations", schema)["script_record"]).format(**_fields(migration)).as_string() + ";"
    return [f"-- {migration}", sql_of(migration, schema).strip(), record]


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError unless this code is compatible with the schema; the message names the remedy."""
    check_encoding(conn)
    found = status(conn, schema)
    code = shipped()[-1].number
    missing = [migration for migration in found if migration.applied_at is None]
    target = f"schema {schema!r} in database {conn.info.dbname!r}"
    if len(missing) == len(found):
        raise SchemaError(f"{target} does not exist: run `{command('migrate', schema)}`")
    if missing:
        names = ", ".join(map(str, missing))
        raise SchemaError(f"{target} is older than this code and lacks {names}: run `{command('migrate', schema)}`")
    if too_new := [migration for migration in found if migration.needs_code > code]:
        raise SchemaError(f"{target} is too new for this code (level {code}) since {too_new[0]}: update qworker")


def check_encoding(conn: psycopg.Connection[Any]) -> None:
    """Raise SchemaError if the encoding is SQL_ASCII: a job with invalid bytes would stop the whole queue."""
    if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise SchemaError(
            f"database {conn.info.dbname!r} has the encoding SQL_ASCII, which does not define characters: use another "
            "database for jobs, created by CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )


def encoding_warning(conn: psycopg.Connection[Any]) -> str | None:
    """Return a warning about the limits of an encoding other than UTF8; None for UTF8."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding in {"UTF8", "SQL_ASCII", None}:
        return None
    return (
        f"database {conn.info.dbname!r} has the encoding {encoding}: arguments with other characters are rejected, and "
        "in results and errors such characters are replaced by escapes; UTF8 has no such limits"
    )


def lock_key(schema: str) -> tuple[int, int]:
    """Return the two 32-bit keys of the advisory lock for migrations of one schema."""
    return _LOCK, int.from_bytes(zlib.crc32(schema.encode()).to_bytes(4), signed=True)


def _prepare(cursor: psycopg.Cursor[Any], schema: str) -> None:
    sql = load("migrations", schema)
    # The lock needs no table and is released with the transaction, even behind a transaction pooler.
    cursor.execute(sql["lock"], lock_key(schema))
    # CREATE SCHEMA IF NOT EXISTS requires the CREATE privilege even if the schema exists.
    if cursor.execute(sql["exists"]).fetchone() == (False,):
        cursor.execute(sql["schema"])
    if not _has_table(cursor, schema):
        cursor.execute(sql["table"])


def _applied(conn: psycopg.Connection[Any], schema: str) -> list[Any]:
    sql = load("migrations", schema)
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    try:
        return cursor.execute(sql["applied"]).fetchall() if _has_table(cursor, schema) else []
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"role {conn.info.user!r} may not use schema {schema!r} in database {conn.info.dbname!r} "
            f"({error.diag.message_primary}): grant USAGE, or run as the role that applied the migrations"
        ) from error


def _has_table(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    return cursor.execute(load("migrations", schema)["has_table"]).fetchone() == (True,)


def sql_of(migration: Migration, schema: str = DEFAULT_SCHEMA) -> LiteralString:
    """Return the SQL of one migration for a schema."""
    text = files("qworker").joinpath("sql", f"{migration}.sql").read_text(encoding="utf-8")
    return qualify(text, schema)


def _fields(migration: Migration) -> dict[str, Any]:
    return {"number": migration.number, "name": migration.name, "needs_code": migration.needs_code}
