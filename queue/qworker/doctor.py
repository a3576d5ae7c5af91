"""The statements of `qworker doctor`, which look for problems and change nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.rows import class_row, dict_row

from qworker.db.statements import DEFAULT_SCHEMA, Database, load

#: The columns of statements that may be infinite, if a time was edited by hand.
_NUMBERS = frozenset({"seconds", "days", "at", "last_tick", "lease"})
#: A row by the names of its columns. All values are numbers, strings, booleans, lists or None.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Server:
    """The server that was checked, and what the role of the session may see of it."""

    #: As in server_version_num: 180006.
    version: int
    database: str
    role: str
    #: Whether the server is a standby, which accepts no writes.
    standby: bool
    #: Whether the role sees the sessions of other roles (pg_read_all_stats, contained in pg_monitor).
    reads_sessions: bool
    #: Whether the role may list the write-ahead log (pg_monitor).
    reads_wal: bool


class Doctor:
    """The statements for one schema; `area` is the file below sql/queries without its suffix."""

    __slots__ = ("_schema", "_sql")

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        self._schema = schema
        self._sql = load("doctor", schema)

    def server(self, database: Database) -> Server:
        """Return the facts about the server that checks depend on."""
        found = database.cursor(row_factory=class_row(Server)).execute(self._sql["server"]).fetchone()
        assert found is not None  # noqa: S101
        return found

    def limit(self, database: Database, seconds: float) -> None:
        """Set the statement timeout of the session."""
        database.execute(self._sql["limit"], {"timeout": f"{int(seconds * 1000)}ms"})

    def rows(self, database: Database, area: str, name: str, parameters: Mapping[str, Any]) -> list[Row]:
        """Return the rows of one statement."""
        statement = load(area, self._schema)[name]
        return database.cursor(row_factory=dict_row).execute(statement, parameters).fetchall()

    def combined(
        self, database: Database, statements: Iterable[tuple[str, str]], parameters: Mapping[str, Any]
    ) -> list[tuple[int, Row]]:
        """Return the rows of several statements, given by area and name, each with the number of its statement.

        They are sent as one statement, because a node that is idle should send few. One error fails all of them.
        """
        part = sql.SQL("SELECT {number} AS number, to_jsonb(found) AS row FROM ({statement}) AS found")
        union = sql.SQL(" UNION ALL ").join(
            part.format(number=sql.Literal(number), statement=sql.SQL(load(area, self._schema)[name]))
            for number, (area, name) in enumerate(statements)
        )
        found = database.execute(union, parameters).fetchall()
        return [(number, {key: _number(key, value) for key, value in row.items()}) for number, row in found]


def _number(name: str, value: Any) -> Any:
    """Return a value of JSON, which has no infinite numbers: they are strings in columns of numbers."""
    return float(value) if name in _NUMBERS and value in ("Infinity", "-Infinity", "NaN") else value
