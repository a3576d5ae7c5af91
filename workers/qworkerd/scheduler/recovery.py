"""Recover the jobs of dead workers."""

from typing import Any

import psycopg

from qworker.recovery import Recovery
from qworkerd import log
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]


class DeadWorkers:
    """Recovers the jobs of this node's dead workers. Tokens fence every statement, so recovery can be repeated."""

    def __init__(self, node: NodeContext, recovery: Recovery, slot: Slot, settlement: Settlement) -> None:
        self._node = node
        self._slot = slot
        self._recovery = recovery
        self._settlement = settlement
        self._log = log.get()

    def recover(self, database: Database) -> int:
        """Recover the jobs of every dead slot; return the number of jobs that became available.

        A slot whose jobs cannot be recovered is tried again in the next round, and delays neither other slots nor the
        round.
        """
        freed = 0
        for slot in self._node.table.dead():
            try:
                freed += self._recover_slot(database, slot)
            except Exception as error:  # for instance a row that a user's trigger or its own contents make unwritable
                if database.closed:
                    raise
                self._log.warning(
                    "worker.recovery_failed", worker=slot.child, worker_pid=slot.pid, error=str(error).strip()
                )
        return freed

    def _recover_slot(self, database: Database, slot: Slot) -> int:
        self._recovery.end_sessions(database, slot.session_tag)
        freed = 0
        try:
            for claim in list(slot.open_claims()):
                freed += self._settlement.recover_claim(database, slot, claim)
                if self._settlement.is_over(database, claim.token):
                    claim.close()
        finally:
            self._node.watermarks.report_release(self._slot)  # covers what the worker released but did not report
        if not any(slot.open_claims()):
            self._log.info(
                "worker.jobs_recovered", worker=slot.child, worker_pid=slot.pid, cause=slot.cause, jobs_freed=freed
            )
            slot.free()
        return freed
