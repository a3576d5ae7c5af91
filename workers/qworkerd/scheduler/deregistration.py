"""Deregisters a node that stops, after the jobs of its dead workers are recovered."""

from collections.abc import Callable
from time import monotonic

import psycopg

from qworkerd import log
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.statistics import Statistics
from qworkerd.shared.context import NodeContext

#: Time allowed for the attempt (seconds). Other nodes recover the remaining jobs.
RECOVERY_TIMEOUT = 4.0


def deregister(
    node: NodeContext, lease: Lease, dead_workers: DeadWorkers, statistics: Statistics, pause: Callable[[float], object]
) -> None:
    """Recover the jobs of dead workers, write the last counts and deregister the node, reconnecting if necessary."""
    end = monotonic() + RECOVERY_TIMEOUT
    connection = ReconnectingConnection(
        node, "scheduler", pause, lambda: monotonic() >= end, direct=True, statement_timeout=2.0, lock_timeout=1.0
    )
    database = connection.get()
    if database is not None:
        try:
            dead_workers.recover(database)
            lease.deregister(database)
            statistics.flush(database)  # last: nothing waits for it
        except psycopg.Error as error:
            log.get().warning("scheduler.shutdown_incomplete", error=str(error).strip(), hint="other nodes take over")
    connection.drop()
