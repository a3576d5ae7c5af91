"""The audit: correct rows that no statement writes, because they were edited manually or forged."""

from collections.abc import Callable
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
        """Correct up to 1,000 rows of each kind; return how many jobs became available.

        Each kind is a statement, which fails if a trigger refuses one of its rows. The others run all the same.
        """
        watermarks, recovery, maintenance = self._node.watermarks, self._recovery, self._maintenance
        restarted = self._correct(
            database, "restarted", "they were running, but named no node or no claim", recovery.restart_unclaimed
        )
        renumbered = self._correct(
            database, "renumbered", "their seq was 0 or below, where no claim starts",
            lambda d: maintenance.renumber(d, watermarks.queues, watermarks.priorities),
        )  # fmt: skip
        self._correct(database, "discarded", "their state is none of an unfinished job", maintenance.end_invalid)
        self._correct(database, "dated", "they had failed, but had no time of failure", maintenance.date_failures)
        return restarted + renumbered + self._release(database)

    def _correct(self, database: Database, done: str, hint: str, statement: Callable[[Database], list[int]]) -> int:
        try:
            jobs = statement(database)
        except psycopg.Error as error:
            if database.closed:
                raise
            self._log.warning("maintenance.error", action=f"audit: {done}", error=str(error).strip())
            return 0
        if jobs:
            self._log.warning("jobs.repaired", done=done, jobs=len(jobs), first=min(jobs), hint=hint)
        return len(jobs)

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
