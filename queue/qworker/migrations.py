"""Brings a database's schema to what this code needs, and tells whether it is there."""

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
from qworker.errors import SchemaError
from qworker.job import to_datetime

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_NEEDS = re.compile(r"^-- needs code: (\d+)$", re.MULTILINE)
#: First half of the advisory lock's key; the second is the schema's name.
_LOCK = 0x71776B72


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, and whether a database has taken it."""

    #: Its place in the order; what the file's name begins with.
    number: int
    #: The rest of the file's name.
    name: str
    #: The oldest code that can live with a schema which has taken it, as the highest migration that code ships.
    needs_code: int
    #: When it was applied; None: not yet.
    applied_at: datetime | None = None
    #: Whether this code ships it; a newer code's migration is known by its name alone.
    shipped: bool = True

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


@cache
def shipped() -> tuple[Migration, ...]:
    """Return the migrations this code brings, in order."""
    found = []
    for file in files("qworker").joinpath("sql").iterdir():
        if match := _FILE.fullmatch(file.name):
            number = int(match[1])
            needs = _NEEDS.search(file.read_text(encoding="utf-8"))
            found.append(Migration(number, match[2], int(needs[1]) if needs else number))
    return tuple(sorted(found, key=lambda migration: migration.number))


def migrate(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own; return the names of those applied.

    Safe when several do it at once: the others wait, and find it done. Needs the right to create schemas in the
    database, or in the schema if that exists; nothing more. Raises SchemaError when rights are missing.
    """
    check_encoding(conn)
    sql = load("migrations", schema)
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    applied = []
    try:
        for migration in shipped():
            with conn.transaction():
                # What a migration names stays bound to what it was found to be: defaults, views, bodies of functions.
                ((path,),) = cursor.execute(sql["path"])
                cursor.execute(sql["pin"], {"path": PINNED})
                _prepare(cursor, schema)
                if cursor.execute(sql["find"], {"number": migration.number}).fetchone() is None:
                    cursor.execute(_text(migration, schema))
                    cursor.execute(sql["note"], _fields(migration))
                    applied.append(str(migration))
                cursor.execute(sql["pin"], {"path": path})  # the transaction may be the caller's, and go on
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"role {conn.info.user!r} may not create schema {schema!r} in database {conn.info.dbname!r} "
            f"({error.diag.message_primary}): run as the database's owner, GRANT CREATE ON DATABASE, or have its "
            f"administrator run the output of `{command('sql', schema)}`"
        ) from error
    return applied


def status(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[Migration]:
    """Return every migration known to this code or to the database, in order."""
    known = {migration.number: migration for migration in shipped()}
    for number, name, needs_code, applied_at in _applied(conn, schema):
        known[number] = Migration(number, name, needs_code, to_datetime(applied_at), number in known)
    return [known[number] for number in sorted(known)]


def script(schema: str = DEFAULT_SCHEMA, after: int = 0) -> str:
    """Return the SQL of the migrations above a number, for somebody else to run; it leaves the same marks."""
    sql = load("migrations", schema)
    first, second = lock_key(schema)
    parts = [SQL(sql["script_begin"]).format(first=first, second=second).as_string() + ";"]
    for migration in shipped():
        if migration.number > after:
            parts += [f"-- {migration}", _text(migration, schema).strip()]
            parts += [SQL(sql["script_note"]).format(**_fields(migration)).as_string() + ";"]
    return "\n\n".join([*parts, sql["script_end"]]) + ";\n"


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError unless this code can work with the database's schema; the message names the way out."""
    check_encoding(conn)
    found = status(conn, schema)
    code = shipped()[-1].number
    missing = [migration for migration in found if migration.applied_at is None]
    target = f"schema {schema!r} in database {conn.info.dbname!r}"
    if len(missing) == len(found):
        raise SchemaError(f"{target} does not exist: run `{command('migrate', schema)}`")
    if missing:
        names = ", ".join(map(str, missing))
        raise SchemaError(f"{target} is older than this code, it lacks {names}: run `{command('migrate', schema)}`")
    if too_new := [migration for migration in found if migration.needs_code > code]:
        raise SchemaError(f"{target} is too new for this code (level {code}) since {too_new[0]}: update qworker")


def check_encoding(conn: psycopg.Connection[Any]) -> None:
    """Raise SchemaError for a database in SQL_ASCII: it stores any bytes, and what one job holds must not stop all."""
    if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise SchemaError(
            f"database {conn.info.dbname!r} is in SQL_ASCII, which has bytes and no characters: jobs need one in UTF8, "
            "as CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0 makes it (it may be one beside this)"
        )


def encoding_warning(conn: psycopg.Connection[Any]) -> str | None:
    """Tell what a database in another encoding than UTF8 does to jobs; None when it is in UTF8."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding in {"UTF8", "SQL_ASCII", None}:
        return None
    return (
        f"database {conn.info.dbname!r} is in {encoding}: arguments with other characters are refused, and in results "
        "and errors such characters are replaced by their escapes; UTF8 has them all"
    )


def lock_key(schema: str) -> tuple[int, int]:
    """Return the two 32-bit halves of the advisory lock that migrations of one schema take."""
    crc = zlib.crc32(schema.encode())
    return _LOCK, crc - (1 << 32) if crc >= 1 << 31 else crc


def _prepare(cursor: psycopg.Cursor[Any], schema: str) -> None:
    sql = load("migrations", schema)
    # The lock needs no table and ends with the transaction, also behind a transaction pooler.
    cursor.execute(sql["lock"], lock_key(schema))
    # IF NOT EXISTS would ask for the right to create schemas even where there is nothing to create.
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
            f"({error.diag.message_primary}): grant it, or run as the role that migrated"
        ) from error


def _has_table(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    return cursor.execute(load("migrations", schema)["has_table"]).fetchone() == (True,)


def _text(migration: Migration, schema: str) -> LiteralString:
    text = files("qworker").joinpath("sql", f"{migration}.sql").read_text(encoding="utf-8")
    return qualify(text, schema)


def _fields(migration: Migration) -> dict[str, Any]:
    return {"number": migration.number, "name": migration.name, "needs_code": migration.needs_code}
