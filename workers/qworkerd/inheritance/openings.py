"""Records where the application opens connections while it is imported: file and line, for messages."""

import os
import sys
import sysconfig
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import currentframe
from socket import socket
from types import FrameType, ModuleType
from typing import Any, Final, Self

import psycopg

#: Servers by the package of their client.
CLIENTS: Final = {
    "psycopg": "PostgreSQL", "psycopg2": "PostgreSQL", "psycopg_pool": "PostgreSQL", "asyncpg": "PostgreSQL",
    "pg8000": "PostgreSQL", "pymysql": "MySQL", "MySQLdb": "MySQL", "mysql": "MySQL", "pymssql": "SQL Server",
    "pytds": "SQL Server", "oracledb": "Oracle", "redis": "Redis", "valkey": "Redis", "amqp": "AMQP", "pika": "AMQP",
    "pymongo": "MongoDB", "pymemcache": "memcached", "memcache": "memcached", "pylibmc": "memcached", "http": "HTTP",
}  # fmt: skip
_LIBRARIES: Final = {*CLIENTS, "django", "sqlalchemy", "flask_sqlalchemy", "kombu", "urllib3", "qworker", "qworkerd"}
_STANDARD: Final = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_INSTALLED: Final = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a connection was opened."""

    #: The server, if the client implies it; None if it could be any.
    server: str | None
    #: The client's package, if it is known.
    client: str | None
    #: File and line; None if no application code was on the stack, as in a thread of a pool.
    location: str | None


class Openings:
    """Records, in its `with` block, the connections of psycopg, psycopg2 and Python's sockets, and psycopg's pools.

    The replaced functions are restored at the end. If another library has wrapped one of them meanwhile, its wrapper is
    kept, and the replacement only calls the original.
    """

    def __init__(self) -> None:
        self._recorded: dict[int, tuple[weakref.ref[Any], Opening]] = {}
        self._pools: list[tuple[weakref.ref[Any], Opening]] = []
        self._undo: list[Callable[[], None]] = []
        self._active = False
        hooks: dict[str, Callable[[ModuleType], None]] = {
            "psycopg2": self._watch_psycopg2,
            "psycopg_pool": self._watch_pools,
        }
        self._finder = _ImportHooks(hooks)

    def __enter__(self) -> Self:
        self._active = True
        self._replace(psycopg.BaseConnection, "__init__", self._recording_self)
        self._replace(socket, "connect", self._recording_self)
        self._replace(socket, "connect_ex", self._recording_self)
        for name, hook in self._finder.hooks.items():
            if (module := sys.modules.get(name)) is not None:
                hook(module)
        sys.meta_path.insert(0, self._finder)
        return self

    def __exit__(self, *_: object) -> None:
        self._active = False
        with suppress(ValueError):
            sys.meta_path.remove(self._finder)
        while self._undo:
            self._undo.pop()()

    def by_inode(self) -> dict[int, Opening]:
        """Return the openings by the inodes of their sockets, including closed ones.

        The object that connected may have passed its descriptor on, to TLS or to a transport of asyncio.
        """
        pools = {id(pool): opening for ref, opening in self._pools if (pool := ref()) is not None}
        return {
            inode: pools.get(id(getattr(ref(), "_pool", None)), opening)
            for inode, (ref, opening) in self._recorded.items()
        }

    def open_pools(self) -> list[Opening]:
        """Return the openings of psycopg's open pools, whose threads connect at any time."""
        return [opening for ref, opening in self._pools if (pool := ref()) is not None and not pool.closed]

    def _replace(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original, own = getattr(owner, name), name in vars(owner)
        replacement = wrap(original)
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name) is not replacement:
                return
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)

        self._undo.append(undo)

    def _recording_self(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(connection: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(connection, *args, **kwargs)
            finally:  # a non-blocking connect raises BlockingIOError
                self._record(connection)

        return call

    def _recording_result(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            connection = original(*args, **kwargs)
            self._record(connection)
            return connection

        return call

    def _recording_pool(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(pool: Any, *args: Any, **kwargs: Any) -> None:
            if self._active:
                self._pools.append((weakref.ref(pool), _opening(currentframe())))
            original(pool, *args, **kwargs)

        return call

    def _record(self, connection: Any) -> None:
        if self._active:
            # Each driver raises its own error for a closed connection. A connection that is not recorded is still
            # found, but without its location.
            with suppress(Exception):
                inode = os.fstat(connection.fileno()).st_ino
                self._recorded[inode] = weakref.ref(connection), _opening(currentframe())

    def _watch_psycopg2(self, module: ModuleType) -> None:
        if hasattr(module, "_connect"):
            self._replace(module, "_connect", self._recording_result)

    def _watch_pools(self, module: ModuleType) -> None:
        base = getattr(sys.modules.get(f"{module.__name__}.base"), "BasePool", None)
        if base is not None:
            self._replace(base, "__init__", self._recording_pool)


class _ImportHooks(MetaPathFinder):
    """Calls a hook right after a module has been imported."""

    def __init__(self, hooks: dict[str, Callable[[ModuleType], None]]) -> None:
        self.hooks = hooks

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module with the other finders, and make its loader call the hook."""
        if fullname not in self.hooks:
            return None
        others = (
            find for finder in sys.meta_path if finder is not self and (find := _find_spec_of(finder)) is not None
        )
        spec = next((spec for find in others if (spec := find(fullname, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = partial(self._exec, loader.exec_module, self.hooks[fullname])
        return spec

    @staticmethod
    def _exec(original: Callable[..., None], hook: Callable[[ModuleType], None], module: ModuleType) -> None:
        original(module)
        hook(module)


def _find_spec_of(finder: Any) -> Callable[..., ModuleSpec | None] | None:
    found: Callable[..., ModuleSpec | None] | None = getattr(finder, "find_spec", None)
    return found


def _opening(frame: FrameType | None) -> Opening:
    """Return the location of the application's innermost frame, or else of the innermost installed, unknown package."""
    client = installed = None
    while frame is not None:
        file = frame.f_code.co_filename
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if client is None and package in CLIENTS:
            client = package
        if package not in _LIBRARIES and not file.startswith("<frozen"):
            location = f"{file}, line {frame.f_lineno}"
            if any(part in file for part in _INSTALLED):
                installed = installed or location
            elif not file.startswith(_STANDARD):
                return Opening(CLIENTS.get(client or ""), client, location)
        frame = frame.f_back
    return Opening(CLIENTS.get(client or ""), client, installed)
