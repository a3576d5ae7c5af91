"""Bring the paused queues into shared memory, where the workers of the node see them."""

from collections.abc import Collection

from qworker.db.statements import Database
from qworker.queues import Queues, resume_command
from qworkerd import log
from qworkerd.scheduler.notifications import Notifications
from qworkerd.shared.context import NodeContext


class Pauses:
    """Applies the set of paused queues that a poll has read. Without a poll, the last known set remains in effect."""

    def __init__(self, node: NodeContext, queues: Queues, notifications: Notifications) -> None:
        self._node = node
        self._queues = queues
        self._notifications = notifications
        self._log = log.get()
        #: The set that this scheduler has applied. An earlier scheduler may have been killed while it applied one: the
        #: set is in memory then, and the workers do not know yet that it has changed.
        self._applied: frozenset[str] | None = None

    def read(self, database: Database) -> None:
        """Read the paused queues. Call this before the node registers, as its workers claim from then on."""
        self.apply(database, self._queues.paused_names(database, self._node.settings.queues))

    def apply(self, database: Database, names: Collection[str] | None) -> None:
        """Make a changed set known to the workers, to enqueuers, and to the log; None if it could not be read.

        If that fails, the next poll tries it again.
        """
        before = self._node.paused.names if self._applied is None else self._applied
        now = before if names is None else frozenset(names)
        if now == self._applied:
            return
        self._node.paused.set(now)
        if before - now:
            # The claim positions may have passed jobs of the queue; an idle worker's next claim is a sweep.
            self._node.worker_wakeup.wake()
        self._notifications.update_idle_queues(database)
        paused = self._queues.paused(database, now - before) if now - before else ()
        self._applied = now
        for queue in sorted(before - now):
            self._log.info("queue.resumed", queue=queue)
        for pause in paused:
            self._log.info(
                "queue.paused", queue=pause.queue, since=pause.at.isoformat(), by=pause.by, reason=pause.reason,
                hint=resume_command(pause.queue),
            )  # fmt: skip
