"""Recovers the jobs of dead workers."""

from qworker.db.statements import Database
from qworker.recovery import Recovery
from qworkerd import log
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot


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

        A slot whose jobs cannot be recovered is tried again in the next iteration of the loop, and delays no other
        work.
        """
        released = 0
        for slot in self._node.table.dead():
            try:
                released += self._recover_slot(database, slot)
            except Exception as error:  # for example, a user's trigger or the contents of a row prevent the update
                if database.closed:
                    raise
                self._log.warning(
                    "worker.recovery_failed", worker=slot.child, worker_pid=slot.pid, error=str(error).strip()
                )
        return released

    def _recover_slot(self, database: Database, slot: Slot) -> int:
        self._recovery.end_sessions(database, slot.session_tag)
        released = 0
        try:
            for claim in list(slot.open_claims()):
                released += self._settlement.recover_claim(database, slot, claim)
                if self._settlement.is_over(database, claim.token):
                    self._settlement.count_rest(database, slot, claim)
                    claim.close()
        finally:
            self._node.watermarks.report_release(self._slot)  # covers what the worker released but did not report
        if not any(slot.open_claims()):
            self._log.info(
                "worker.jobs_recovered",
                worker=slot.child,
                worker_pid=slot.pid,
                cause=slot.cause,
                jobs_released=released,
            )
            slot.free()
        return released
