"""The tables, columns, indexes, triggers and storage parameters that migrations create, as read from their SQL."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from qworker.db.statements import DEFAULT_SCHEMA
from qworker.migrations import shipped, sql_of

_COMMENT = re.compile(r"--[^\n]*")
_TABLE = re.compile(
    r"^CREATE TABLE \w+\.(?P<table>\w+) \((?P<body>.*?)\n\)(?: WITH \((?P<options>.*?)\))?"
    r"(?P<parts> PARTITION BY[^;]*)?;",
    re.MULTILINE | re.DOTALL,
)
_INDEX = re.compile(
    r"^CREATE (?:UNIQUE )?INDEX (?P<name>\w+) ON \w+\.(?P<table>\w+)(?: USING \w+)? \((?P<columns>[^;]*?)\)"
    r"(?: WITH \([^;)]*\))?(?P<predicate> WHERE [^;]*)?;",
    re.MULTILINE,
)
_TRIGGER = re.compile(r"^CREATE TRIGGER (?P<name>\w+) [^;]*? ON \w+\.(?P<table>\w+)\s[^;]*;", re.MULTILINE)
_CONSTRAINT = re.compile(r"CONSTRAINT (\w+) |(PRIMARY KEY) \(")
_NO_COLUMN = re.compile(r"(?:CONSTRAINT|PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY|EXCLUDE)\b")


@dataclass(frozen=True, slots=True)
class ShippedObject:
    """An object that the schema must have, and the SQL that creates it."""

    #: The number of the migration that creates it.
    migration: int
    #: table, column, constraint, index, trigger or option (a storage parameter of a table).
    kind: str
    relation: str
    name: str
    #: The columns of an index, followed by "WHERE" if it is partial; the value of an option; else empty.
    value: str
    #: Creates it, in a schema whose table exists unless it is a table.
    ddl: str


@cache
def shipped_objects(schema: str = DEFAULT_SCHEMA) -> tuple[ShippedObject, ...]:
    """Return the objects of all shipped migrations."""
    return tuple(
        found
        for migration in shipped()
        for found in _objects(migration.number, _COMMENT.sub("", sql_of(migration, schema)), schema)
    )


def as_records(schema: str) -> list[dict[str, Any]]:
    """Return them as JSON objects."""
    return [asdict(found) for found in shipped_objects(schema)]


def _objects(number: int, text: str, schema: str) -> Iterator[ShippedObject]:
    partitioned = set()
    for found in _TABLE.finditer(text):
        table = found["table"]
        if found["parts"]:
            partitioned.add(table)
        yield ShippedObject(number, "table", table, table, "", " ".join(found[0].split()))
        for item in _items(found["body"]):
            yield from _of_table(number, table, item, schema)
        for option in _items(found["options"] or ""):
            name, value = (part.strip() for part in option.split("="))
            yield ShippedObject(
                number, "option", table, name, value, f"ALTER TABLE {schema}.{table} SET ({name} = {value});"
            )
    for found in _INDEX.finditer(text):
        definition = " ".join(found[0].split())
        if found["table"] not in partitioned:
            definition = definition.replace("INDEX", "INDEX CONCURRENTLY", 1)
        columns = ", ".join(_items(found["columns"]))
        value = f"{columns} WHERE" if found["predicate"] else columns
        yield ShippedObject(number, "index", found["table"], found["name"], value, definition)
    for found in _TRIGGER.finditer(text):
        yield ShippedObject(number, "trigger", found["table"], found["name"], "", " ".join(found[0].split()))


def _of_table(number: int, table: str, item: str, schema: str) -> Iterator[ShippedObject]:
    if named := _CONSTRAINT.match(item):
        name = named[1] or f"{table}_pkey"
        yield ShippedObject(number, "constraint", table, name, "", f"ALTER TABLE {schema}.{table} ADD {item};")
    if _NO_COLUMN.match(item):
        return
    column = item.split(maxsplit=1)[0]
    plain = item.replace(" PRIMARY KEY", "")
    yield ShippedObject(number, "column", table, column, "", f"ALTER TABLE {schema}.{table} ADD COLUMN {plain};")
    if plain != item:
        yield ShippedObject(
            number,
            "constraint",
            table,
            f"{table}_pkey",
            "",
            f"ALTER TABLE {schema}.{table} ADD PRIMARY KEY ({column});",
        )


def _items(text: str) -> Iterator[str]:
    """Split at commas outside of parentheses; white space becomes single spaces."""
    depth, item = 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            yield " ".join(item.split())
            item = ""
        else:
            item += character
    if item.strip():
        yield " ".join(item.split())
