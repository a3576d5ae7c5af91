"""Makes scheduled jobs available when they are due."""

from functools import partial
from math import inf

from qworker.db.statements import Database
from qworker.maintenance import Maintenance
from qworkerd.scheduler.batched_write import MAX_ROWS, BatchedWrite
from qworkerd.scheduler.periodic import Periodic

#: Time before now at which a scan starts (seconds): a job may be committed after it was due.
SCAN_BEHIND = 60.0
#: Interval of scans that start at the beginning (seconds), for jobs that were committed even later.
FULL_SCAN_INTERVAL = 30.0


class Promotion:
    """Scans the index of scheduled jobs from shortly before now, skipping dead entries that an old snapshot keeps."""

    def __init__(self, maintenance: Maintenance) -> None:
        self._maintenance = maintenance
        self._promoting = BatchedWrite("promote")
        self._full_scan = Periodic(FULL_SCAN_INTERVAL)
        self._start = 0.0

    def start(self, at: float) -> float:
        """Return where the next scan starts (seconds since 1970); `at` is the database's clock at the last poll."""
        self._start = -inf if self._full_scan.is_due else at - SCAN_BEHIND
        return self._start

    def promote(self, database: Database, due_in: float | None) -> int:
        """Make due jobs available and return their number; due_in is the time until the first is due (seconds)."""
        promoted = 0
        if due_in is not None and due_in <= 0:
            write = partial(self._maintenance.promote, database, self._start)
            first = partial(self._maintenance.first_due, database, self._start)
            promoted = len(self._promoting.run(database, write, first))
        if self._start == -inf and promoted < MAX_ROWS:
            self._full_scan.restart()
        return promoted
