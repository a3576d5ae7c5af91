"""Wakes idle workers when a notification arrives, and marks the node idle or busy for processes that enqueue."""

from math import inf
from time import monotonic

import psycopg

from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import Database
from qworker.registry import Registry
from qworkerd import log
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.periodic import Periodic
from qworkerd.shared.context import NodeContext

#: Polls after the node has marked itself idle (seconds). A transaction may have checked for idle nodes before that and
#: committed afterwards, without a notification.
POLLS_AFTER_IDLE = (0.002, 0.01, 0.05, 0.25)
#: Time after which a subscription that has failed is tried again (seconds).
SUBSCRIPTION_RETRY = 5.0

POOLER_HINT = (
    "the DSN leads through a pooler, which does not forward notifications: jobs are found by polling only; "
    "set QWORKER_DIRECT_DSN to avoid this"
)


class Notifications:
    """Receives notifications, and maintains this node's row in the table of idle nodes, which are notified."""

    def __init__(self, node: NodeContext, registry: Registry, lease: Lease) -> None:
        self._node = node
        self._registry = registry
        self._lease = lease
        self._polls: list[float] = []
        self._notified = False
        #: Whether a queue was paused or resumed since the last poll.
        self.queues_changed = False
        #: Whether this session receives notifications. Otherwise the node does not mark itself idle.
        self.listening = False
        self._subscription = Periodic(SUBSCRIPTION_RETRY)
        self._log = log.get()

    def begin_session(self, database: Database) -> None:
        """Forget the subscription of an earlier session. Behind a pooler there is none; jobs are found by polling."""
        self.listening = False
        self._subscription.due = 0.0
        if is_pooled(database):
            self._subscription.due = inf
            self._log.warning(
                "scheduler.notifications_unavailable", poll_interval=self._node.settings.poll_interval, hint=POOLER_HINT
            )

    def listen(self, database: Database) -> None:
        """Subscribe to notifications, once in a session. If that fails, it is due again after a while."""
        if self.listening or not self._subscription.is_due:
            return
        self._subscription.restart()
        database.add_notify_handler(self._on_notify)
        try:
            self._registry.listen(database)
        except psycopg.Error:
            database.remove_notify_handler(self._on_notify)
            raise
        self.listening = True

    def _on_notify(self, notification: psycopg.Notify) -> None:
        self._record(notification.payload.encode())

    def _record(self, payload: bytes) -> None:
        """Record a notification: the name of a queue that has a job, or nothing if a queue was paused or resumed."""
        if payload:
            self._notified = True
        else:
            self.queues_changed = True

    @property
    def due(self) -> float:
        """When a poll is due because of a notification, or because the node has become idle (monotonic)."""
        if self.queues_changed:
            return 0.0
        return self._polls[0] if self._polls else float("inf")

    def receive(self, database: Database) -> None:
        """Process the notifications that have arrived, and wake a worker if there are any.

        This reads from libpq directly, which takes a tenth of the time of `Connection.notifies`. The notify handler has
        already recorded those that arrived with the result of a statement.
        """
        database.pgconn.consume_input()
        while (notification := database.pgconn.notifies()) is not None:
            self._record(notification.extra)
        if not self._notified:
            return
        self._notified = False
        self._node.worker_wakeup.wake()
        if not self._lease.has_idle_worker():
            self.update_idle(database)

    def update_idle(self, database: Database) -> None:
        """Update the table: idle at once, busy with a delay, because an unneeded notification does no harm."""
        idle = self._lease.has_idle_worker()
        if idle == self._lease.idle or not self.listening or self._node.table.header.draining:
            return
        self._registry.set_idle(database, self._node.table.header.node, idle=idle, paused=self._node.paused.names)
        self._lease.idle = idle
        if idle:
            now = monotonic()
            self._polls = [now, *(now + delay for delay in POLLS_AFTER_IDLE)]
        else:
            self._polls.clear()

    def update_idle_queues(self, database: Database) -> None:
        """Store again for which queues this idle node is woken, after one was paused or resumed."""
        if self._lease.idle:
            self._registry.set_idle(database, self._node.table.header.node, idle=False)
            self._lease.idle = False
            self.update_idle(database)

    def poll_after_idle(self) -> None:
        """Wake a worker to find jobs that were committed without a notification."""
        now = monotonic()
        if self._polls and self._polls[0] <= now:
            self._polls = [delay for delay in self._polls if delay > now]
            self._node.worker_wakeup.wake()
