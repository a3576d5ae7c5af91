"""Close the connections of Django, SQLAlchemy and our own pools before a fork, and drop them after it.

Only modules that are already loaded are searched; nothing is imported.
"""

import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from qworker.db.pool import Pool

#: The servers of Django's vendors and SQLAlchemy's dialects, with the ports that are theirs by default.
SERVERS = {
    "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MySQL", "oracle": "Oracle", "mssql": "SQL Server",
    "microsoft": "SQL Server",
}  # fmt: skip


class Frameworks:
    """The connections of frameworks after the application was imported."""

    def __init__(self) -> None:
        self._engines: list[weakref.ref[Any]] = []

    def close(self) -> None:
        """Close unused connections in the process that opened them; the next use opens new ones."""
        for wrapper in _django():
            _close_django(wrapper)
        kind = getattr(sys.modules.get("sqlalchemy.engine"), "Engine", None)
        # type() instead of isinstance(), which would evaluate a lazy object.
        for thing in gc.get_objects():
            if issubclass(type(thing), Pool):
                thing.close()
            elif kind is not None and issubclass(type(thing), kind) and not _in_memory(thing):
                self._engines.append(weakref.ref(thing))
                # An asynchronous engine can only be closed in its event loop.
                if not thing.dialect.is_async:
                    with suppress(Exception):
                        thing.dispose()

    def forget(self) -> None:
        """Drop the parent's connections in a forked child without closing them: the sessions belong to the parent."""
        for engine in self._alive():
            engine.dispose(close=False)

    def ports(self) -> dict[int, str]:
        """Return the servers behind the ports that settings of Django and SQLAlchemy name."""
        found: dict[int, str] = {}
        for wrapper in _django():
            server, port = SERVERS.get(str(wrapper.vendor)), str(wrapper.settings_dict.get("PORT") or "")
            if server is not None and port.isdecimal():
                found[int(port)] = server
        for engine in self._alive():
            server = SERVERS.get(engine.dialect.name)
            if server is not None and engine.url.port is not None:
                found[int(engine.url.port)] = server
        return found

    def _alive(self) -> list[Any]:
        return [engine for ref in self._engines if (engine := ref()) is not None]


def dsn_ports(dsn: str) -> dict[int, str]:
    """Return the ports of a connection string, which are PostgreSQL's."""
    # An invalid string is reported where it is used.
    with suppress(Exception):
        ports = str(conninfo_to_dict(dsn).get("port") or "").split(",")
        return {int(port): "PostgreSQL" for port in ports if port.isdecimal()}
    return {}


def _django() -> Iterator[Any]:
    """Yield the connection wrappers that Django has made for this thread."""
    django = sys.modules.get("django.db")
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if django is not None and settings is not None and settings.configured:
        yield from django.connections.all(initialized_only=True)


def _close_django(wrapper: Any) -> None:
    """Close a connection and, with the option `pool` of Django 5.1, its pool with the threads."""
    # A connection that cannot be closed is found afterwards and reported.
    with suppress(Exception):
        wrapper.close()
    with suppress(Exception):
        # Reading `pool` would create one.
        if wrapper.alias in getattr(wrapper, "_connection_pools", ()):
            wrapper.close_pool()


def _in_memory(engine: Any) -> bool:
    """Tell whether closing the engine's connections would lose an in-memory database: each process keeps its copy."""
    database = engine.url.database
    return engine.dialect.name in ("sqlite", "duckdb") and (
        database in (None, "", ":memory:") or "mode=memory" in str(engine.url)
    )
