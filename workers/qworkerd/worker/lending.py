"""The pooled connection that handlers may use: `current_job.connection`."""

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from qworker.connection import session_name
from qworkerd.node import Node
from qworkerd.slots import Slot


class Lending:
    """Lends one connection at a time, opened by the first handler that asks; its work ends with the handler's.

    An ordinary connection, with the server's own settings: the framework's statements never travel on it.
    """

    def __init__(self, node: Node, slot: Slot) -> None:
        self._node = node
        self._role = f"job {slot.seat} {slot.tag}"
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None

    def lend(self) -> psycopg.Connection[Any]:
        """Return a connection that is not in a transaction; raises psycopg_pool.PoolTimeout when there is none."""
        if self._pool is None:
            self._pool = ConnectionPool(
                self._conninfo, min_size=1, max_size=1, num_workers=1, timeout=10.0, open=True,
                check=ConnectionPool.check_connection, name="handlers",
            )  # fmt: skip
        connection = self._pool.getconn()
        # What the job before has made of it: with autocommit on, nothing would be rolled back when this one raises.
        connection.autocommit = False
        connection.row_factory = tuple_row
        return connection

    def _conninfo(self) -> str:
        dsn = self._node.dsn
        return make_conninfo(dsn, application_name=session_name(conninfo_to_dict(dsn), self._role))

    def take_back(self, connection: psycopg.Connection[Any], *, commit: bool) -> psycopg.Error | None:
        """Commit or roll back what the handler has done; return what went wrong. The pool keeps the connection."""
        try:
            if commit:
                connection.commit()
            elif not connection.closed:
                connection.rollback()
        except psycopg.Error as error:
            return error
        finally:
            if self._pool is not None:
                self._pool.putconn(connection)
        return None

    def close(self) -> None:
        """Close the pool, without waiting for its threads for long."""
        if self._pool is not None:
            self._pool.close(timeout=1.0)
