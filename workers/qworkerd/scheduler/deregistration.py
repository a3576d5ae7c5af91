"""The parting: a node that ends settles what it has left, and is struck off."""

from collections.abc import Callable
from time import monotonic

import psycopg

from qworkerd import log
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.shared.context import NodeContext

#: How long to try (seconds). What is left then is other nodes'.
RECOVERY_TIMEOUT = 4.0


def deregister(node: NodeContext, lease: Lease, burials: DeadWorkers, pause: Callable[[float], object]) -> None:
    """Settle the graves and strike the node off, over a connection that may be made anew for it."""
    end = monotonic() + RECOVERY_TIMEOUT
    link = ReconnectingConnection(
        node, "scheduler", pause, lambda: monotonic() >= end, direct=True, statement_timeout=2.0, lock_timeout=1.0
    )
    database = link.get()
    if database is not None:
        try:
            burials.recover(database)
            lease.deregister(database)
        except psycopg.Error as error:
            log.get().warning("scheduler.shutdown_incomplete", error=str(error).strip(), hint="other nodes take over")
    link.drop()
