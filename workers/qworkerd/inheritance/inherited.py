"""Connections that the application opened while it was imported, and that forked children must not share.

If two processes use one session, they read each other's results. Connections of known frameworks are therefore closed
before the first fork. Connections that are still open are found among the descriptors of the process, and reported.
Connections to database servers are also disconnected in every child, where any use of them raises an error.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, socket, socketpair
from typing import Final, Self

from qworkerd.inheritance.frameworks import Frameworks, dsn_ports
from qworkerd.inheritance.openings import Opening, Openings

#: Servers by their usual ports. 6432 is PgBouncer's.
PORTS: Final = {
    5432: "PostgreSQL", 6432: "PostgreSQL", 3306: "MySQL", 33060: "MySQL", 1433: "SQL Server", 1521: "Oracle",
    27017: "MongoDB", 6379: "Redis", 5672: "AMQP", 5671: "AMQP", 11211: "memcached", 9092: "Kafka", 4222: "NATS",
    80: "HTTP", 443: "HTTP", 8080: "HTTP", 9200: "Elasticsearch",
}  # fmt: skip
#: Servers by a part of the path of their Unix sockets.
PATHS: Final = {
    ".s.PGSQL.": "PostgreSQL",
    "mysql": "MySQL",
    "maria": "MySQL",
    "redis": "Redis",
    "memcached": "memcached",
}
#: Servers whose sessions belong to one process. Most clients of other servers detect a fork.
DATABASES: Final = frozenset({"PostgreSQL", "MySQL", "SQL Server", "Oracle"})

#: Hints for a connection to a database, for one that --allow-open-connections permits, and for any other.
REMEDY: Final = (
    "forked workers would share it and read each other's results: open it in the handlers, close it at the end of the "
    "import, or start with --allow-open-connections, which disconnects it in the workers"
)
DISCONNECTED: Final = "it is disconnected in the workers, where any use of it raises an error"
SHARED: Final = "forked workers share it unless its client detects the fork; open it in the handlers instead"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that is open after the import."""

    #: The name of the server program; None if it is not recognized.
    server: str | None
    #: HOST:PORT or a path; None if it is not known yet.
    peer: str | None
    #: The inode of the socket; 0 for a pool whose threads open connections later.
    inode: int
    opening: Opening | None = None

    @property
    def fatal(self) -> bool:
        """Whether it leads to a database: forked children that shared it would read each other's results."""
        return self.server in DATABASES

    def __str__(self) -> str:
        kind = "pool of connections" if self.inode == 0 else "connection"
        peer = f" at {self.peer}" if self.peer else ""
        opened = ""
        if self.opening is not None and self.opening.location is not None:
            opened = f", opened in {self.opening.location}"
            opened += f" with {self.opening.client}" if self.opening.client else ""
        return f"importing the application left a {kind} to {self.server or 'a server'}{peer} open{opened}"


class Inheritance:
    """Finds the connections that are opened in its `with` block, in which the application is loaded."""

    def __init__(self) -> None:
        self._before = frozenset(_sockets().values())
        self._openings = Openings()
        self._frameworks = Frameworks()
        self._ports: dict[int, str] = dict(PORTS)
        self._fatal: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        self._openings.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._openings.__exit__()
        self._frameworks.close()

    def find_connections(self, dsn: str = "") -> list[Connection]:
        """Return the connections that have been opened since the beginning and are still open."""
        self._ports |= self._frameworks.ports() | dsn_ports(dsn)
        opened = self._openings.by_inode()
        found = [
            connection
            for fd, inode in _sockets().items()
            if inode not in self._before and (connection := _connection_of(fd, inode, self._ports, opened.get(inode)))
        ]
        self._fatal = frozenset(connection.inode for connection in found if connection.fatal)
        # The threads of a pool connect at any time.
        return found + [Connection("PostgreSQL", None, 0, opening) for opening in self._openings.open_pools()]

    def disconnect(self) -> None:
        """Disconnect the parent's database connections in a forked child, before the child opens its own connections.

        Each descriptor is replaced by a closed socket. Nothing is sent on the connection, because that would end the
        session, or its TLS layer, for the parent as well.
        """
        for fd, inode in _sockets().items():
            if inode in self._before:
                continue
            connection = _connection_of(fd, inode, self._ports, None)
            if connection is not None and (inode in self._fatal or connection.fatal):
                closed, other_end = socketpair()
                other_end.close()
                os.dup2(closed.fileno(), fd, inheritable=False)
                closed.close()
        self._frameworks.discard()


def _connection_of(fd: int, inode: int, ports: Mapping[int, str], opening: Opening | None) -> Connection | None:
    """Return the connection of a socket; None for listening and datagram sockets and socket pairs."""
    try:
        with socket(fileno=os.dup(fd)) as copy:
            if copy.type != SOCK_STREAM or copy.family not in (AF_INET, AF_INET6, AF_UNIX):
                return None
            peer = copy.getpeername()
            family = copy.family
    except OSError:
        return None
    if family == AF_UNIX:
        path = os.fsdecode(peer)
        if not path:
            return None
        server = next((name for part, name in PATHS.items() if part in path), None)
        text = path.replace("\0", "@")
    else:
        host, port = peer[:2]
        server, text = ports.get(port), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Connection((opening.server if opening else None) or server, text, inode, opening)


def _sockets() -> dict[int, int]:
    """Return the inodes of this process's sockets by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - only the names are needed
        with suppress(OSError):
            kind, _, inode = os.readlink(f"/proc/self/fd/{name}").partition(":")  # noqa: PTH115
            if kind == "socket":
                found[int(name)] = int(inode.strip("[]"))
    return found
