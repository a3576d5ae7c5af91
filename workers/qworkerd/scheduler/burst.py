"""Ends a node with --burst when its queues are empty."""

from qworker import program
from qworker.db.statements import Database
from qworker.registry import PollResult, Registry
from qworkerd import log
from qworkerd.shared.context import NodeContext

#: Number of consecutive polls that must find no work.
EMPTY_POLLS = 2
#: Time between two polls (seconds).
BURST_POLL = 0.05


def skipped_hint() -> str:
    """Return what is logged of queues that are paused when the node ends."""
    resume = program.command("queues resume")
    return f"the node ends although the paused queues may hold jobs; resume them with `{resume}`"


class Burst:
    """Counts consecutive polls that find no work."""

    def __init__(self, node: NodeContext, registry: Registry) -> None:
        self._node = node
        self._registry = registry
        self._empty_polls = 0
        self._log = log.get()

    def check(self, database: Database, result: PollResult) -> None:
        """Declare the queues empty if this poll, like the one before it, has found no work.

        What waits while the node is paused is work: the node waits for it until it is resumed or stopped.
        """
        paused = self._node.paused
        skipped = paused.queues
        found = result.waiting(paused.lanes_of(skipped)) or result.has_running
        queues, priorities = self._node.settings.queues, self._node.app.priorities
        empty = not (found or self._registry.unfinished(database, queues, priorities, skipped))
        self._empty_polls = self._empty_polls + 1 if empty else 0
        if self._empty_polls == EMPTY_POLLS and skipped:
            self._log.warning("queue.skipped", queues=sorted(skipped), hint=skipped_hint())
        if self._empty_polls >= EMPTY_POLLS:
            self._node.table.header.queues_empty = True
            self._node.worker_wakeup.wake()
