"""The audit: correct rows that no statement writes, because they were edited manually or forged."""

from typing import Any

import psycopg

from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]

#: Polls search for newer claims only (seconds); the token of a job that still runs stands in a slot.
OLD = 60.0


class Audit:
    """Lets every job end, whatever its row contains: a job that no worker holds is run, an invalid one is discarded."""

    def __init__(self, node: NodeContext, recovery: Recovery, maintenance: Maintenance, slot: Slot) -> None:
        self._node = node
        self._recovery = recovery
        self._maintenance = maintenance
        self._slot = slot
        self._log = log.get()

    def run(self, database: Database) -> int:
        """Correct up to 1,000 rows of each kind; return how many jobs became available."""
        watermarks = self._node.watermarks
        restarted = self._recovery.restart_unclaimed(database)
        renumbered = self._maintenance.renumber(database, watermarks.queues, watermarks.priorities)
        self._say("restarted", restarted, "they were running, but named no node or no claim")
        self._say("renumbered", renumbered, "their seq was 0 or below, where no claim starts")
        self._say("discarded", self._maintenance.end_invalid(database), "their state is none of an unfinished job")
        self._say("dated", self._maintenance.date_failures(database), "they had failed, but had no time of failure")
        return len(restarted) + len(renumbered) + self._release(database)

    def _release(self, database: Database) -> int:
        """Release old claims of this node that no slot holds."""
        node, freed = self._node.table.header.node, 0
        claims = self._recovery.old_claims(database, node, OLD)
        # Slots are read after the database: a token stands in its slot before the claim is sent.
        for token in claims - self._node.table.tokens():
            freed += self._recovery.release_claim(database, node, token)
        if freed:
            self._node.watermarks.report_release(self._slot)
            self._log.warning("jobs.reconciled", jobs=freed, hint="claimed for this node, held by no worker")
        return freed

    def _say(self, done: str, jobs: list[int], hint: str) -> None:
        if jobs:
            self._log.warning("jobs.repaired", done=done, jobs=len(jobs), first=min(jobs), hint=hint)
