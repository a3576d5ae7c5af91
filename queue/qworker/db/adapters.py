"""Finds the connection below the caller's SQLAlchemy or Django object: a job joins the caller's transaction.

SQLAlchemy and Django are recognized by the modules of their classes. This module never imports them.
"""

import json
import re
import sys
from typing import Any

import psycopg

from qworker.db.drivers import Caller, DriverConnection, driver_connection
from qworker.db.sessions import below_session

Connection = psycopg.Connection[Any]

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")

_WANTED = "a psycopg Connection, a SQLAlchemy Session or Connection, or the alias of a Django database"


def unwrap(conn: Any) -> Caller:
    """Return the connection of psycopg, psycopg2 or pg8000 that carries the caller's transaction.

    Raises TypeError for any other object. The message says what to pass instead.
    """
    if isinstance(conn, psycopg.Connection):
        return conn
    if isinstance(conn, str):
        return _django(conn)
    origins = {kind.__module__.partition(".")[0] for kind in type(conn).__mro__}
    if "flask_sqlalchemy" in origins and hasattr(conn, "session") and not hasattr(conn, "get_bind"):
        conn = conn.session  # the extension object
        origins.add("sqlalchemy")
    if "sqlalchemy" in origins:
        return below_session(conn, _WANTED)
    if "django" in origins and hasattr(conn, "ensure_connection"):
        return below_django(conn)
    if isinstance(conn, DriverConnection):
        return conn
    if (driver := driver_connection(conn)) is not None:
        return driver
    raise TypeError(_refusal(conn, origins))


def _refusal(conn: Any, origins: set[str]) -> str:
    if isinstance(conn, psycopg.AsyncConnection):
        return f"enqueue() cannot use an asynchronous {_type_name(conn)}: await .using(conn).aenqueue(...)"
    if "asyncpg" in origins:
        return (
            f"using() takes {_WANTED}, not the asynchronous {_type_name(conn)}; use psycopg, or a connection of qworker"
            " (await task.aenqueue(...)), or call the SQL function enqueue"
        )
    return f"using() takes {_WANTED}, not {repr(conn) if isinstance(conn, int | float) else _type_name(conn)}"


async def unwrap_async(conn: Any) -> psycopg.AsyncConnection[Any] | None:
    """Return the asynchronous connection of psycopg that the caller's object stands for; None for any other object."""
    if hasattr(conn, "run_sync"):  # an AsyncSession or AsyncConnection of SQLAlchemy
        if hasattr(conn, "get_bind"):
            conn = await conn.connection()
        if not conn.in_transaction():
            await conn.begin()
        conn = (await conn.get_raw_connection()).driver_connection
        if not isinstance(conn, psycopg.AsyncConnection):
            raise TypeError(
                f"SQLAlchemy uses {_type_name(conn)} here, but jobs join asynchronous transactions of psycopg only: "
                "write the URL as postgresql+psycopg://..., or call the SQL function enqueue"
            )
    if not isinstance(conn, psycopg.AsyncConnection):
        return None
    refuse_bytes(conn)
    return conn


def _django(alias: str) -> Connection:
    django = sys.modules.get("django.db")
    if django is None:
        raise TypeError(f"using({alias!r}) means a Django database, but Django is not in use here; pass {_WANTED}")
    if alias not in django.connections:
        known = ", ".join(sorted(map(str, django.connections)))
        raise ValueError(f"using({alias!r}): Django has no database of that alias; it has {known}")
    return below_django(django.connections[alias])


def below_django(wrapper: Any) -> Connection:
    """Return the psycopg connection of a Django database; raises Django's error if its atomic block is broken."""
    if wrapper.vendor != "postgresql":
        raise TypeError(f"using({wrapper.alias!r}): this Django database is {wrapper.vendor}; jobs need PostgreSQL")
    wrapper.ensure_connection()
    # Django refuses further statements in a block that has to roll back, and explains why.
    wrapper.validate_no_broken_transaction()
    return _driver(wrapper.connection)


def _driver(conn: Any) -> Connection:
    if isinstance(conn, psycopg.Connection):
        return conn
    raise TypeError(
        f"Django uses {type(conn).__module__.partition('.')[0]} here, but jobs join its transactions with psycopg 3 "
        "only: use Django 4.2 or newer with psycopg 3 installed, or enqueue in transaction.on_commit(), or pass "
        "conn=None to enqueue on a separate connection, committed at once"
    )


def json_in(conn: Caller | psycopg.AsyncConnection[Any], text: str) -> str:
    """Return JSON text that the caller's client_encoding can represent; other characters become JSON escapes."""
    if text.isascii() or (not isinstance(conn, DriverConnection) and conn.info.encoding == "utf-8"):
        return text
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def refuse_bytes(conn: Caller | psycopg.AsyncConnection[Any]) -> None:
    """Raise TypeError if client_encoding is SQL_ASCII, because psycopg then returns strings as bytes."""
    if not isinstance(conn, DriverConnection) and conn.pgconn.parameter_status(b"client_encoding") == b"SQL_ASCII":
        raise TypeError(
            "the connection's client_encoding is SQL_ASCII, with which psycopg returns strings as bytes: "
            "SET client_encoding TO 'UTF8' there, or pass conn=None to enqueue on a separate connection"
        )


def _type_name(conn: Any) -> str:
    return f"{type(conn).__module__}.{type(conn).__qualname__}"
