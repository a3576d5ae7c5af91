"""The repair: corrects rows that no statement of qworker writes, because they were edited or forged."""

from collections.abc import Callable

import psycopg

from qworker.db.statements import Database
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

#: Age of a claim that polls no longer search for (seconds). The token of a job that is still running is in a slot.
OLD_CLAIM_AGE = 60.0


class Repair:
    """Ensures that each job ends, whatever its row contains: releases jobs that no worker has, and discards others."""

    def __init__(self, node: NodeContext, recovery: Recovery, maintenance: Maintenance, slot: Slot) -> None:
        self._node = node
        self._recovery = recovery
        self._maintenance = maintenance
        self._slot = slot
        self._log = log.get()

    def run(self, database: Database) -> int:
        """Correct up to 1,000 rows of each kind; return the number of jobs that became available.

        Each kind has its own statement. If a trigger rejects one of its rows, the others are executed nevertheless.
        """
        if not self._is_needed(database):
            return 0
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

    def _is_needed(self, database: Database) -> bool:
        """Look for all kinds of rows by one statement. If it fails, each kind is looked for by itself."""
        watermarks, node = self._node.watermarks, self._node.table.header.node
        try:
            return self._maintenance.needs_repair(
                database, node, OLD_CLAIM_AGE, watermarks.queues, watermarks.priorities
            )
        except psycopg.Error:
            if database.closed:
                raise
            return True

    def _correct(self, database: Database, done: str, hint: str, statement: Callable[[Database], list[int]]) -> int:
        try:
            jobs = statement(database)
        except psycopg.Error as error:
            if database.closed:
                raise
            self._log.warning("maintenance.error", action=f"repair: {done}", error=str(error).strip())
            return 0
        if jobs:
            self._log.warning("jobs.repaired", done=done, jobs=len(jobs), first=min(jobs), hint=hint)
        return len(jobs)

    def _release(self, database: Database) -> int:
        """Release old claims of this node that are in no slot."""
        node, released = self._node.table.header.node, 0
        claims = self._recovery.old_claims(database, node, OLD_CLAIM_AGE)
        # Slots are read after the database, because a token is written to its slot before the claim is sent.
        for token in claims - self._node.table.tokens():
            released += len(self._recovery.release_claim(database, node, token))
        if released:
            self._node.watermarks.report_release(self._slot)
            self._log.warning("jobs.reconciled", jobs=released, hint="claimed for this node, held by no worker")
        return released
