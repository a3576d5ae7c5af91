"""Close the connections of Django, SQLAlchemy and qworker's pools before a fork, and discard them after it.

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

#: Servers by the names of Django's vendors and SQLAlchemy's dialects.
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
        for candidate in gc.get_objects():
            if issubclass(type(candidate), Pool):
                candidate.close()
            elif kind is not None and issubclass(type(candidate), kind) and not _in_memory(candidate):
                self._engines.append(weakref.ref(candidate))
                # An asynchronous engine can only be closed in its event loop.
                if not candidate.dialect.is_async:
                    with suppress(Exception):
                        candidate.dispose()

    def discard(self) -> None:
        """Discard connections in a forked child without closing them: the sessions belong to the parent."""
        for engine in self._live_engines():
            engine.dispose(close=False)

    def ports(self) -> dict[int, str]:
        """Return the servers by port, according to the settings of Django and SQLAlchemy."""
        found: dict[int, str] = {}
        for wrapper in _django():
            server, port = SERVERS.get(str(wrapper.vendor)), str(wrapper.settings_dict.get("PORT") or "")
            if server is not None and port.isdecimal():
                found[int(port)] = server
        for engine in self._live_engines():
            server = SERVERS.get(engine.dialect.name)
            if server is not None and engine.url.port is not None:
                found[int(engine.url.port)] = server
        return found

    def _live_engines(self) -> list[Any]:
        return [engine for ref in self._engines if (engine := ref()) is not None]


def dsn_ports(dsn: str) -> dict[int, str]:
    """Return the ports in a connection string of PostgreSQL, in the form of `Frameworks.ports`."""
    # An invalid string is reported where it is used.
    with suppress(Exception):
        ports = str(conninfo_to_dict(dsn).get("port") or "").split(",")
        return {int(port): "PostgreSQL" for port in ports if port.isdecimal()}
    return {}


def _django() -> Iterator[Any]:
    """Yield the connection wrappers that Django has created for this thread."""
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
    """Return whether an engine has an in-memory database, which would be lost when its connections are closed."""
    database = engine.url.database
    return engine.dialect.name in ("sqlite", "duckdb") and (
        database in (None, "", ":memory:") or "mode=memory" in str(engine.url)
    )
