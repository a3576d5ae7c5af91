"""End a node with --burst once its queues are empty."""

from typing import Any

import psycopg

from qworker.registry import PollResult, Registry
from qworkerd.shared.context import NodeContext

Database = psycopg.Connection[tuple[Any, ...]]

#: Number of consecutive polls that must find no work.
EMPTY_POLLS = 2


class Burst:
    """Counts the polls that find no work."""

    def __init__(self, node: NodeContext, registry: Registry) -> None:
        self._node = node
        self._registry = registry
        self._empty_polls = 0

    def check(self, database: Database, result: PollResult) -> None:
        """Declare the queues empty if this poll, like the one before it, has found no work."""
        found = result.waiting or result.has_running
        empty = not (found or self._registry.unfinished(database, self._node.settings.queues))
        self._empty_polls = self._empty_polls + 1 if empty else 0
        if self._empty_polls >= EMPTY_POLLS:
            self._node.table.header.queues_empty = True
            self._node.worker_wakeup.wake()
