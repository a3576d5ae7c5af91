"""Wake sleeping workers: hear what is enqueued, and let others know that somebody sleeps."""

from time import monotonic
from typing import Any

import psycopg

from qworker.db.pgbouncer import is_pooled
from qworker.nodes import Nodes
from qworkerd import log
from qworkerd.scheduler.lease import Lease
from qworkerd.shared.context import NodeContext

Database = psycopg.Connection[tuple[Any, ...]]

#: After the node has said that it is idle, somebody looks again so soon (seconds): for jobs whose transaction had
#: looked before and committed after.
POLLS_AFTER_IDLE = (0.002, 0.01, 0.05, 0.25)

POOLER_HINT = (
    "the DSN leads through a pooler, which carries no notifications: jobs wait for a look; see QWORKER_DIRECT_DSN"
)


class Notifications:
    """Keeps the list of sleepers, which tells enqueueing whether to notify."""

    def __init__(self, node: NodeContext, nodes: Nodes, lease: Lease) -> None:
        self._node = node
        self._nodes = nodes
        self._lease = lease
        self._looks: list[float] = []
        self._heard = False
        #: Whether notifications do not come: then nobody need be told that this node sleeps.
        self._deaf = False
        self._log = log.get()

    def listen(self, database: Database) -> None:
        """Have the server say what is enqueued; a pooler would keep that for itself, and jobs are found by looking."""
        self._deaf = is_pooled(database)
        if self._deaf:
            self._log.warning(
                "scheduler.notifications_unavailable", poll_interval=self._node.settings.poll_interval, hint=POOLER_HINT
            )
            return
        database.add_notify_handler(self._note)
        self._nodes.listen(database)

    def _note(self, _: psycopg.Notify) -> None:
        self._heard = True

    @property
    def due(self) -> float:
        """When the next look is due (monotonic)."""
        return self._looks[0] if self._looks else float("inf")

    def receive(self, database: Database) -> None:
        """Take the notifications that have come; each may be work for a sleeping worker, who waits for this.

        Straight from libpq, in a tenth of the time of `Connection.notifies`; what came with an answer is noted already.
        """
        database.pgconn.consume_input()
        while database.pgconn.notifies():
            self._heard = True
        if not self._heard:
            return
        self._heard = False
        self._node.worker_wakeup.wake()
        if not self._lease.any_idle():
            self.update_idle(database)

    def update_idle(self, database: Database) -> None:
        """Bring the list up to date. Busy is told late, idle at once: a notification too many does no harm."""
        idle = self._lease.any_idle()
        if idle == self._lease.idle or self._deaf or self._node.table.header.draining:
            return
        self._nodes.set_idle(database, self._node.table.header.node, idle=idle)
        self._lease.idle = idle
        if idle:
            now = monotonic()
            self._looks = [now, *(now + look for look in POLLS_AFTER_IDLE)]
        else:
            self._looks.clear()

    def poll_after_idle(self) -> None:
        """Have a worker look for what nobody could notify of."""
        now = monotonic()
        if self._looks and self._looks[0] <= now:
            self._looks = [look for look in self._looks if look > now]
            self._node.worker_wakeup.wake()
