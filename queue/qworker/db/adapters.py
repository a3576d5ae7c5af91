"""Finds the psycopg connection below the caller's SQLAlchemy or Django object: a job joins the caller's transaction.

SQLAlchemy and Django are recognized by the modules of their classes. This module never imports them.
"""

import json
import re
import sys
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")

_WANTED = "a psycopg Connection, a SQLAlchemy Session or Connection, or the alias of a Django database"


def unwrap(conn: Any) -> Connection:
    """Return the psycopg connection that carries the caller's transaction.

    Raises TypeError for any other object. The message says what to pass instead.
    """
    if isinstance(conn, psycopg.Connection):
        return conn
    if isinstance(conn, str):
        return _django(conn)
    origins = {kind.__module__.partition(".")[0] for kind in type(conn).__mro__}
    if "sqlalchemy" in origins:
        return _sqlalchemy(conn)
    if "django" in origins and hasattr(conn, "ensure_connection"):
        return below_django(conn)
    if isinstance(conn, psycopg.AsyncConnection) or "asyncpg" in origins:
        raise TypeError(
            f"using() takes {_WANTED}, not the asynchronous {_type_name(conn)}; enqueue from a thread, on a connection "
            "used by that thread only (asyncio.to_thread(task.enqueue, ...)), or call the SQL function enqueue"
        )
    if "psycopg2" in origins or "psycopg2cffi" in origins:
        raise TypeError(
            f"using() takes {_WANTED}, not psycopg2's {_type_name(conn)}; move to psycopg 3, or call the SQL function: "
            "SELECT qworker.enqueue('task', '{\"key\": 1}')"
        )
    if isinstance(conn, int | float):
        raise TypeError(f"using() takes {_WANTED}, not {conn!r}")
    raise TypeError(f"using() takes {_WANTED}, not {_type_name(conn)}")


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
    return _driver(wrapper.connection, "Django")


def _sqlalchemy(conn: Any) -> Connection:
    if hasattr(conn, "run_sync"):
        raise TypeError(
            f"using() takes {_WANTED}, not SQLAlchemy's asynchronous {_type_name(conn)}; enqueue from a thread, on a "
            "connection used by that thread only: asyncio.to_thread(task.enqueue, ...)"
        )
    if hasattr(conn, "get_bind"):
        conn = conn.connection()  # a Session; begins its transaction
    if not hasattr(conn, "in_transaction"):
        raise TypeError(
            f"using() takes {_WANTED}, not SQLAlchemy's {_type_name(conn)}; pass engine.connect() or a Session"
        )
    if not conn.in_transaction():
        # SQLAlchemy's own execute() does the same. Otherwise it would not know of the transaction and never commit it.
        conn.begin()
    return _driver(conn.connection.driver_connection, "SQLAlchemy")


def _driver(conn: Any, layer: str) -> Connection:
    if isinstance(conn, psycopg.Connection):
        return conn
    remedy = (
        "use Django 4.2 or newer with psycopg 3 installed, or enqueue in transaction.on_commit()"
        if layer == "Django"
        else "install psycopg and write the URL as postgresql+psycopg://..."
    )
    raise TypeError(
        f"{layer} uses {type(conn).__module__.partition('.')[0]} here, but jobs join transactions of psycopg 3 only: "
        f"{remedy}, or pass conn=None to enqueue on a separate connection, committed at once"
    )


def json_in(conn: Connection, text: str) -> str:
    """Return JSON text that the caller's client_encoding can represent; other characters become JSON escapes."""
    if text.isascii() or conn.info.encoding == "utf-8":
        return text
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def refuse_bytes(conn: Connection) -> None:
    """Raise TypeError if client_encoding is SQL_ASCII, because psycopg then returns strings as bytes."""
    if conn.pgconn.parameter_status(b"client_encoding") == b"SQL_ASCII":
        raise TypeError(
            "the connection's client_encoding is SQL_ASCII, with which psycopg returns strings as bytes: "
            "SET client_encoding TO 'UTF8' there, or pass conn=None to enqueue on a separate connection"
        )


def _type_name(conn: Any) -> str:
    return f"{type(conn).__module__}.{type(conn).__qualname__}"
