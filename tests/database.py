"""A database for tests: where it is, connections that close themselves, and emptying it."""

from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from qworkerd.embedded import EmbeddedPostgres

#: Settings of servers that tests crash: what such a server shares lies in its folder, and nothing is left in /dev/shm.
MORTAL: dict[str, str | int] = {"dynamic_shared_memory_type": "mmap"}

# A table that was never written to has no file of its own length; truncating 40 relations costs more than a test.
_TOUCHED = """
    SELECT relname FROM pg_class
     WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND relname <> 'migration' AND pg_relation_size(oid) > 0
"""
_DISCONNECT_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass
class Database:
    """One database of the test server."""

    dsn: str
    schema: str = "qworker"
    _connections: list[psycopg.Connection[Any]] = field(default_factory=list)

    @classmethod
    def create(cls, server: EmbeddedPostgres, name: str) -> Self:
        """Make an empty database."""
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return cls(make_conninfo(server.dsn, dbname=name))

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect with autocommit; the end of the test closes."""
        conn = psycopg.connect(self.dsn, **({"autocommit": True} | parameters))
        self._connections.append(conn)
        return conn

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def empty(self) -> None:
        """Throw everybody out and delete every row, but for what the migrations keep of themselves."""
        self.close()
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(_DISCONNECT_OTHERS)
            touched = [sql.Identifier(self.schema, name) for (name,) in conn.execute(_TOUCHED, [self.schema])]
            if touched:
                conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(touched)))

    def drop(self, server: EmbeddedPostgres) -> None:
        """Delete the database, whoever is connected."""
        self.close()
        name = psycopg.conninfo.conninfo_to_dict(self.dsn)["dbname"]
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(str(name))))
