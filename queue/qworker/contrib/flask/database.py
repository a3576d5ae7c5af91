"""The database of a Flask application: its connection string, and qworker's connections to it."""

from collections.abc import Callable
from typing import Any

import flask
from psycopg import pq
from psycopg.conninfo import make_conninfo

from qworker.db.connection import resolve_dsn
from qworker.db.pool import Borrowed, Connection, Pool
from qworker.errors import ConfigurationError


def dsn(config: flask.Config) -> str | None:
    """Return the connection string of a Flask application's configuration; None if there is none.

    QWORKER_DSN comes first. Then comes SQLALCHEMY_DATABASE_URI if it names a PostgreSQL database, with its options and
    the `connect_args` of SQLALCHEMY_ENGINE_OPTIONS.
    """
    if given := config.get("QWORKER_DSN"):
        return str(given)
    uri = config.get("SQLALCHEMY_DATABASE_URI")
    return None if uri is None else _of_sqlalchemy(uri, config.get("SQLALCHEMY_ENGINE_OPTIONS") or {})


def _of_sqlalchemy(uri: Any, options: dict[str, Any]) -> str | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        raise ConfigurationError("SQLALCHEMY_DATABASE_URI is not a URL that SQLAlchemy can parse") from None
    if url.get_backend_name() != "postgresql":
        return None
    # The dialect knows what the URL means to libpq, several hosts in its query included.
    url = url.set(drivername="postgresql+psycopg")
    _, parameters = url.get_dialect()().create_connect_args(url)
    parameters = {**parameters, **(options.get("connect_args") or {})}
    parameters.setdefault("dbname", parameters.pop("database", None))
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    return make_conninfo("", **{name: value for name, value in parameters.items() if name in known})


class FlaskPool(Pool):
    """Connections for each Flask application: those of the current one are used."""

    def __init__(self, current: Callable[[], Pool], dsn: Callable[[], str], schema: str) -> None:
        """Take what returns the pool of the current Flask application, and its connection string."""
        super().__init__(dsn, schema)
        self._current = current

    def resolve(self) -> str:
        """Return the connection string for a new connection of the current Flask application."""
        return resolve_dsn(self.dsn)

    def connection(self, conn: Any = None) -> Borrowed:
        """Borrow a connection for a `with` block, or wrap the given one, which remains the caller's."""
        return Borrowed(self if conn is not None else self._current(), conn)

    def getconn(self) -> Connection:
        """Return a connection to the database of the current Flask application."""
        return self._current().getconn()

    def putconn(self, conn: Connection, *, read_only: bool = False) -> None:
        """Return a connection to the pool of the current Flask application."""
        self._current().putconn(conn, read_only=read_only)
