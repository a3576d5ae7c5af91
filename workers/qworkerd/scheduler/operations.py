"""Carries out operations, slice by slice, beside whatever other nodes and clients do of them."""

from time import monotonic

import psycopg

from qworker.db.statements import Database
from qworker.operations import Operations
from qworkerd import log
from qworkerd.scheduler.maintenance import MaintenanceTasks

#: Time after which a turn ends (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 0.5
#: Interval at which old operations are deleted (seconds).
RETENTION_INTERVAL = 600.0


class OperationSlices:
    """Takes slices of any operations when a poll has found one that waits."""

    def __init__(self, schema: str) -> None:
        self._operations = Operations(schema)
        self._log = log.get()

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task that deletes old operations."""
        maintenance.add("old operations", RETENTION_INTERVAL, self._operations.delete_old)

    def run(self, database: Database) -> bool:
        """Carry out slices until none is due; return whether time was up before."""
        until = monotonic() + TIME_LIMIT
        while True:
            try:
                operation = self._operations.advance(database)
            except psycopg.Error as error:  # this one is tried again later; the others go on
                if database.closed:
                    raise
                self._log.warning("operation.slice_failed", error=str(error).strip())
                return False
            if operation is None:
                return False
            if not operation.running:
                self._log.info(
                    "operation.ended", operation=operation.id, action=operation.action.value, state=operation.state,
                    done=operation.done, skipped=operation.skipped, failed=operation.failed, error=operation.error,
                    by=operation.actor,
                )  # fmt: skip
            if monotonic() >= until:
                return True
