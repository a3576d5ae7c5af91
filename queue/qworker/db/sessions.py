"""Finds the driver's connection below the caller's SQLAlchemy session or connection, and follows its transaction.

SQLAlchemy is recognized by the modules of its classes. This module never imports it.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from qworker.db.drivers import Caller, driver_connection, raw

#: For each connection of a driver: the SQLAlchemy transaction that was open when a job was last enqueued on it.
_transactions: WeakKeyDictionary[Any, Callable[[], Any]] = WeakKeyDictionary()


def below_session(conn: Any, wanted: str) -> Caller:
    """Return the connection of the driver below a SQLAlchemy Session or Connection, and begin its transaction.

    wanted: what `using` takes, for the message of the TypeError.
    """
    if hasattr(conn, "run_sync"):
        raise TypeError(
            f"enqueue() cannot use SQLAlchemy's asynchronous {_type_name(conn)}: await .using(...).aenqueue(...)"
        )
    if hasattr(conn, "get_bind"):
        conn = conn.connection()  # a Session; begins its transaction
    if not hasattr(conn, "in_transaction"):
        raise TypeError(
            f"using() takes {wanted}, not SQLAlchemy's {_type_name(conn)}; pass engine.connect() or a Session"
        )
    if not conn.in_transaction():
        # SQLAlchemy's own execute() does the same. Otherwise it would not know of the transaction and never commit it.
        conn.begin()
    driver = conn.connection.driver_connection
    caller = driver if isinstance(driver, psycopg.Connection) else driver_connection(driver)
    if caller is None:
        raise TypeError(
            f"SQLAlchemy uses {type(driver).__module__.partition('.')[0]} here, but jobs join transactions of psycopg, "
            "psycopg2 and pg8000 only: write the URL as postgresql+psycopg://..., or pass conn=None to enqueue on a "
            "separate connection, committed at once"
        )
    _transactions[driver] = weakref.ref(conn.get_transaction())
    return caller


def reference(caller: Caller) -> Callable[[], Any]:
    """Return a function that returns the caller's connection while the transaction that is open now may be open.

    SQLAlchemy gives a connection to another thread when its transaction has ended. A job must not join that
    thread's transaction.
    """
    driver = raw(caller)
    transaction = _transactions.get(driver)
    connection = weakref.ref(driver)
    return connection if transaction is None else partial(_while_active, connection, transaction)


def _while_active(connection: Callable[[], Any], transaction: Callable[[], Any]) -> Any:
    found = transaction()
    return connection() if found is not None and found.is_active else None


def is_two_phase(caller: Caller) -> bool:
    """Return whether the open transaction is to be prepared, as far as psycopg, pg8000 or SQLAlchemy know."""
    driver = raw(caller)
    if (getattr(driver, "_tpc", None) or getattr(driver, "_xid", None)) is not None:  # of psycopg and pg8000
        return True
    transaction = _transactions.get(driver)
    found = None if transaction is None else transaction()
    return found is not None and found.is_active and hasattr(found, "xid")


def _type_name(conn: Any) -> str:
    return f"{type(conn).__module__}.{type(conn).__qualname__}"
