"""Wake sleeping workers: hear what is enqueued, and let others know that somebody sleeps."""

from time import monotonic
from typing import Any

import psycopg

from qworker.nodes import Nodes
from qworkerd.node import Node
from qworkerd.scheduler.lease import Lease

Database = psycopg.Connection[tuple[Any, ...]]

#: After the node has said that it is idle, somebody looks again so soon (seconds): for jobs whose transaction had
#: looked before and committed after.
LOOKS = (0.002, 0.01, 0.05, 0.25)


class Wake:
    """Keeps node.idle, which tells enqueueing whether to notify."""

    def __init__(self, node: Node, nodes: Nodes, lease: Lease) -> None:
        self._node = node
        self._nodes = nodes
        self._lease = lease
        self._looks: list[float] = []

    @property
    def due(self) -> float:
        """When the next look is due (monotonic)."""
        return self._looks[0] if self._looks else float("inf")

    def hear(self, database: Database) -> None:
        """Take the notifications that have come; each may be work for a sleeping worker."""
        heard = list(database.notifies(timeout=0))
        if not heard:
            return
        self._node.wake.ring()
        if not self._lease.any_idle():
            self.tell(database)

    def tell(self, database: Database) -> None:
        """Bring node.idle up to date. Busy is told late, idle at once: a notification too many does no harm."""
        idle = self._lease.any_idle()
        if idle == self._lease.idle or self._node.table.header.draining:
            return
        self._nodes.set_idle(database, self._node.table.header.node, idle=idle)
        self._lease.idle = idle
        if idle:
            now = monotonic()
            self._looks = [now, *(now + look for look in LOOKS)]
        else:
            self._looks.clear()

    def look(self) -> None:
        """Have a worker look for what nobody could notify of."""
        now = monotonic()
        if self._looks and self._looks[0] <= now:
            self._looks = [look for look in self._looks if look > now]
            self._node.wake.ring()
