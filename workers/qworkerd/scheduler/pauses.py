"""Bring what is paused, queues and the node itself, into shared memory, where the workers of the node see it."""

from collections.abc import Collection

from qworker.db.statements import Database
from qworker.nodes import Nodes
from qworker.nodes import resume_command as resume_node_command
from qworker.queues import Queues, resume_command
from qworker.registry import PollResult
from qworkerd import log
from qworkerd.scheduler.notifications import Notifications
from qworkerd.shared.context import NodeContext


class Pauses:
    """Applies what a poll has read to be paused. Without a poll, what is known remains in effect."""

    def __init__(self, node: NodeContext, queues: Queues, nodes: Nodes, notifications: Notifications) -> None:
        self._node = node
        self._queues = queues
        self._nodes = nodes
        self._notifications = notifications
        self._log = log.get()
        #: What this scheduler has applied: the paused queues, and whether the node is paused. An earlier scheduler may
        #: have been killed while it applied it: it is in memory then, and the workers do not know yet that it changed.
        self._applied: tuple[frozenset[str], bool] | None = None

    def read(self, database: Database) -> None:
        """Read what is paused. Call this before the node registers, as its workers claim from then on."""
        names = self._queues.paused_names(database, self._node.settings.queues)
        self._apply(database, names, self._nodes.is_paused(database, self._node.table.header.node))

    def apply(self, database: Database, result: PollResult) -> None:
        """Make what has changed known to the workers, to enqueuers, and to the log.

        If that fails, the next poll tries it again.
        """
        self._apply(database, result.paused, result.node_paused)

    def _apply(self, database: Database, names: Collection[str] | None, node_paused: bool | None) -> None:
        """Apply the paused queues, and whether the node is paused; None for what could not be read."""
        memory = self._node.paused
        queues_before, node_before = self._applied or (memory.queues, memory.node)
        queues = queues_before if names is None else frozenset(names)
        node = node_before if node_paused is None else node_paused
        if (queues, node) == self._applied:
            return
        if node and not node_before:
            self._node.keep_pause(self._nodes.pause_of(database, self._node.table.header.node))
        memory.set(queues, node=node)
        if queues_before - queues or (node_before and not node):
            # The claim positions may have passed jobs of the queue; an idle worker's next claim is a sweep.
            self._node.worker_wakeup.wake()
        self._notifications.update_idle_queues(database)
        paused = self._queues.paused(database, queues - queues_before) if queues - queues_before else ()
        self._applied = queues, node
        if node != node_before:
            self._log_node(paused=node)
        for queue in sorted(queues_before - queues):
            self._log.info("queue.resumed", queue=queue)
        for pause in paused:
            self._log.info(
                "queue.paused", queue=pause.queue, since=pause.at.isoformat(), by=pause.by, reason=pause.reason,
                hint=resume_command(pause.queue),
            )  # fmt: skip

    def _log_node(self, *, paused: bool) -> None:
        number, pause = self._node.table.header.node, self._node.kept_pause()
        if not paused:
            self._node.keep_pause(None)
            self._log.info("node.resumed", node=number)
        elif pause is not None:
            self._log.info(
                "node.paused", node=number, since=pause.at.isoformat(), by=pause.by, reason=pause.reason,
                hint=resume_node_command(number),
            )  # fmt: skip
