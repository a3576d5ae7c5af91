"""Named SQL statements, read from the .sql files beside this module."""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, LiteralString, TypeVar

from psycopg import Connection, Cursor
from psycopg.rows import RowFactory, kwargs_row, scalar_row

from qworker.errors import ConfigurationError

T = TypeVar("T")
#: A connection of qworker, see `qworker.db.connection.connect`.
Database = Connection[tuple[Any, ...]]

DEFAULT_SCHEMA = "qworker"
#: The search_path of all qworker sessions and functions, so that they never call a function another role has created.
#: pg_temp comes last; if it is not listed, it is searched first for tables and types.
PINNED = "pg_catalog, pg_temp"
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_PARAMETER = re.compile(r"%\((\w+)\)s")
#: {name} or {name: argument} in a statement, after the schema's name has been inserted.
_FRAGMENT = re.compile(r"\{(\w+)(?:: *([^{}]+))?\}")
_COMMENT = re.compile(r"\A(?:--.*\n)+")
_STATEMENT = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def qualify(text: str, schema: str) -> LiteralString:
    """Insert the schema's name into SQL text. This is the only place where a setting becomes part of a statement.

    Raises ConfigurationError unless the name is a lower-case identifier of at most 48 characters. Such a name needs no
    quoting, and the names that PostgreSQL derives from it do not exceed its limit.
    """
    if not _SCHEMA_NAME.fullmatch(schema):
        msg = f"invalid schema name {schema!r}: use lower-case letters, digits and _, at most 48 characters"
        raise ConfigurationError(msg)
    return text.replace("{schema}", schema)


def numbered(statement: LiteralString) -> tuple[LiteralString, list[str]]:
    """Replace the parameters %(name)s of a statement by $1, $2, and so on; return it and their names in order."""
    names = list(dict.fromkeys(_PARAMETER.findall(statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    return statement.replace("%%", "%"), names


@cache
def load(area: str, schema: str = DEFAULT_SCHEMA) -> dict[str, LiteralString]:
    """Return the statements of one file of queries/ by name, for the given schema, with their fragments inserted."""
    fragments = _read("fragments", schema)
    return {name: _expand(statement, fragments) for name, statement in _read(area, schema).items()}


def _read(area: str, schema: str) -> dict[str, LiteralString]:
    text = files("qworker").joinpath("sql", "queries", f"{area}.sql").read_text(encoding="utf-8")
    return {name: qualify(body.strip().rstrip(";"), schema) for name, body in _STATEMENT.findall(text)}


def _expand(statement: LiteralString, fragments: dict[str, LiteralString]) -> LiteralString:
    """Insert the fragments that a statement refers to; a fragment may refer to others."""
    while found := next((match for match in _FRAGMENT.finditer(statement) if match[1] in fragments), None):
        fragment = _COMMENT.sub("", fragments[found[1]]).replace("{argument}", found[2] or "")
        statement = statement.replace(found[0], fragment)
    return statement


class Statements:
    """The statements of one file of queries/ for one schema; the methods take the connection to use."""

    __slots__ = ("_sql",)

    def __init__(self, area: str, schema: str) -> None:
        self._sql = load(area, schema)

    def _rows(self, database: Database, statement: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        return database.execute(self._sql[statement], parameters).fetchall()

    def _records(self, database: Database, statement: str, make: Callable[..., T], /, **parameters: Any) -> list[T]:
        """Return what `make` returns for each row, called with the columns by name."""
        return self._execute(database, statement, kwargs_row(make), parameters).fetchall()

    def _column(self, database: Database, statement: str, /, **parameters: Any) -> list[Any]:
        return self._execute(database, statement, scalar_row, parameters).fetchall()

    def _scalar(self, database: Database, statement: str, /, **parameters: Any) -> Any:
        """Return the value of the first row; None if there is no row."""
        return self._execute(database, statement, scalar_row, parameters).fetchone()

    def _number(self, database: Database, statement: str, /, **parameters: Any) -> int | None:
        number: int | None = self._scalar(database, statement, **parameters)
        return number

    def _count(self, database: Database, statement: str, /, **parameters: Any) -> int:
        return database.execute(self._sql[statement], parameters).rowcount

    def _execute(
        self, database: Database, statement: str, make_row: RowFactory[T], parameters: dict[str, Any]
    ) -> Cursor[T]:
        return database.cursor(row_factory=make_row).execute(self._sql[statement], parameters)
