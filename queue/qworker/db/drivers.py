"""Connections of psycopg2 and pg8000: qworker's statements are sent through them as through any driver of PEP 249.

The drivers are recognized by the modules of their classes. This module never imports them.
"""

import re
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row

from qworker.db.arrays import integer_array, text_array

_PARAMETER = re.compile(r"%\((\w+)\)s")


class DriverConnection:
    """A caller's connection that is not one of psycopg 3."""

    __slots__ = ("__weakref__", "raw")

    def __init__(self, raw: Any) -> None:
        #: The driver's object.
        self.raw = raw

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also a failed one."""
        raise NotImplementedError

    @property
    def autocommit(self) -> bool:
        """Whether the driver begins no transaction by itself."""
        return bool(self.raw.autocommit)

    @property
    def address(self) -> tuple[str, str, str] | None:
        """The host, port and database of the connection; None if the driver does not know them."""
        return None

    def diagnostics(self, error: BaseException) -> dict[str, str]:
        """Return the fields of a server's error by the letters of the protocol (C: SQLSTATE, M: message, s: schema).

        Empty for any other exception.
        """
        raise NotImplementedError

    def without_details(self, error: BaseException) -> BaseException:
        """Return a copy of a server's error that has no DETAIL and no CONTEXT."""
        raise NotImplementedError

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Execute a statement with parameters of the form %(name)s, and return its rows as named tuples."""
        values = [_adapted(parameters[name]) for name in _PARAMETER.findall(statement)]
        cursor = self._cursor()
        try:
            cursor.execute(_PARAMETER.sub("%s", statement), values)
            names = [column[0] for column in cursor.description]
            row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc] # noqa: PYI024 - a column without a name is "?column?"
            return [row(*values) for values in cursor.fetchall()]
        finally:
            cursor.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block in a savepoint, or in a transaction if the connection is in autocommit mode and none is open."""
        begin, commit, rollback = (
            ("BEGIN", "COMMIT", "ROLLBACK")
            if self.autocommit and not self.in_transaction
            else ("SAVEPOINT qworker", "RELEASE qworker", "ROLLBACK TO qworker; RELEASE qworker")
        )
        self._execute(begin)
        try:
            yield
        except BaseException:  # also KeyboardInterrupt: the caller's transaction must go on without the block
            self._execute(rollback)
            raise
        self._execute(commit)

    def _execute(self, commands: str) -> None:
        cursor = self._cursor()
        try:
            for command in commands.split("; "):
                cursor.execute(command)
        finally:
            cursor.close()

    def _cursor(self) -> Any:
        return self.raw.cursor()


class _Psycopg2(DriverConnection):
    __slots__ = ()

    @property
    def in_transaction(self) -> bool:
        return not self.raw.closed and self.raw.get_transaction_status() != TransactionStatus.IDLE

    @property
    def address(self) -> tuple[str, str, str] | None:
        info = getattr(self.raw, "info", None)
        return None if info is None else (info.host, str(info.port), info.dbname)

    def diagnostics(self, error: BaseException) -> dict[str, str]:
        diag, code = getattr(error, "diag", None), getattr(error, "pgcode", None)
        if diag is None or code is None:
            return {}
        return {"C": code, "M": diag.message_primary or "", "s": diag.schema_name or ""}

    def without_details(self, error: BaseException) -> BaseException:
        fields = self.diagnostics(error)
        copy = type(error)(fields["M"])
        copy.__setstate__({"pgcode": fields["C"], "pgerror": fields["M"]})  # pgcode cannot be assigned
        return copy

    def _cursor(self) -> Any:
        # The connection's cursor_factory may return rows of another type.
        return self.raw.cursor(cursor_factory=sys.modules[f"{_module(self.raw)}.extensions"].cursor)


class _Pg8000(DriverConnection):
    __slots__ = ()

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw._in_transaction) and self.raw._usock is not None  # noqa: SLF001 - there is no other way

    def diagnostics(self, error: BaseException) -> dict[str, str]:
        fields = error.args[0] if error.args else None
        return fields if isinstance(fields, dict) and "C" in fields else {}

    def without_details(self, error: BaseException) -> BaseException:
        return type(error)({name: value for name, value in self.diagnostics(error).items() if name not in "DW"})


_MODULES: dict[str, type[DriverConnection]] = {
    "psycopg2": _Psycopg2,
    "psycopg2cffi": _Psycopg2,
    "pg8000": _Pg8000,
}  # fmt: skip

#: A connection that carries the caller's transaction.
Caller: TypeAlias = psycopg.Connection[Any] | DriverConnection


def _module(raw: Any) -> str | None:
    """Return the driver's package if an object is a connection of a known driver."""
    if not (hasattr(raw, "cursor") and hasattr(raw, "autocommit")):
        return None
    found = (kind.__module__.partition(".")[0] for kind in type(raw).__mro__)
    return next((name for name in found if name in _MODULES), None)


def driver_connection(raw: Any) -> DriverConnection | None:
    """Return a connection of psycopg2 or pg8000 in the form that this library uses; None for any other object."""
    module = _module(raw)
    return None if module is None else _MODULES[module](raw)


def raw(conn: Caller) -> Any:
    """Return the driver's own object."""
    return conn.raw if isinstance(conn, DriverConnection) else conn


def rows(conn: Caller, statement: Any, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Execute a statement on a connection of any driver, and return its rows as named tuples."""
    if isinstance(conn, DriverConnection):
        return conn.rows(statement, parameters or {})
    return psycopg.Cursor(conn, row_factory=namedtuple_row).execute(statement, parameters).fetchall()


def in_transaction(conn: Caller) -> bool:
    """Return whether a transaction is open on a connection of any driver; False if the connection is closed."""
    if isinstance(conn, DriverConnection):
        return conn.in_transaction
    return not conn.closed and conn.pgconn.transaction_status != TransactionStatus.IDLE


def _adapted(value: Any) -> Any:
    """Return a value that every driver can send: lists as array literals."""
    if isinstance(value, list):
        return integer_array(value) if all(isinstance(item, int) for item in value) else text_array(value)
    return value
