"""Does what is due once a day, on one node of the cluster: analyze the history, measure the database."""

import time
from collections.abc import Iterable

import psycopg

from qworker import program
from qworker.db.statements import Database
from qworker.upkeep import NODE_TARGET, Upkeep
from qworkerd import log
from qworkerd.shared.context import NodeContext

#: How often a node checks whether it is due, and how often it is (seconds).
CHECK_INTERVAL, INTERVAL = 3_600.0, 86_400.0
#: Limit of the statement (seconds): it must not delay the renewal of the lease.
TIMEOUT = 2.0


class DailyUpkeep:
    """The node with the lowest id does it. Two nodes that take themselves for the first repeat it, and do no harm."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._upkeep = Upkeep(node.settings.schema)
        self._due = 0.0
        self._log = log.get()

    def run(self, database: Database, others: Iterable[int]) -> bool:
        """Do it if this node is the first one and has not done so today; return whether the history was analyzed."""
        if time.monotonic() < self._due or any(other < self._node.table.header.node for other in others):
            return False
        self._due = time.monotonic() + INTERVAL
        try:
            self._upkeep.measure(database, TIMEOUT)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            self._log.info("database.measure_skipped", reason=error.diag.message_primary)
        try:
            self._upkeep.analyze(database, NODE_TARGET, TIMEOUT)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            self._log.info(
                "history.analyze_skipped", reason=error.diag.message_primary,
                hint=f"run `{program.command('db maintain')}` when the database has little to do",
            )  # fmt: skip
            return False
        return True
