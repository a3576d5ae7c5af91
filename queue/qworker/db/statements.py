"""Named SQL statements, read from the .sql files beside this module."""

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

from qworker.errors import ConfigurationError

DEFAULT_SCHEMA = "qworker"
#: The search_path of every session and function of ours: what another role creates elsewhere is never called. pg_temp
#: comes last, or it would be searched first for tables and types.
PINNED = "pg_catalog, pg_temp"
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_PARAMETER = re.compile(r"%\((\w+)\)s")
_STATEMENT = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def qualify(text: str, schema: str) -> LiteralString:
    """Put the schema's name into a text of SQL: the only place where SQL is made from a setting.

    Raises ConfigurationError for anything but a plain lower-case identifier of up to 48 characters, which needs no
    quoting and leaves room for what PostgreSQL derives from it.
    """
    if not _SCHEMA_NAME.fullmatch(schema):
        msg = f"schema name {schema!r} is not usable: take lower-case letters, digits and _, at most 48 characters"
        raise ConfigurationError(msg)
    return text.replace("{schema}", schema)


def numbered(statement: LiteralString) -> tuple[LiteralString, list[str]]:
    """Write the parameters %(name)s of a statement as $1, $2, and so on; return it and their names in that order."""
    names = list(dict.fromkeys(_PARAMETER.findall(statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    return statement.replace("%%", "%"), names


@cache
def load(area: str, schema: str = DEFAULT_SCHEMA) -> dict[str, LiteralString]:
    """Return the statements of one file of queries/ by name, for the given schema."""
    text = files("qworker").joinpath("sql", "queries", f"{area}.sql").read_text(encoding="utf-8")
    return {name: qualify(body.strip().rstrip(";"), schema) for name, body in _STATEMENT.findall(text)}
