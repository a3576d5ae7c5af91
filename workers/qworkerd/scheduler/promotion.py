"""Make scheduled jobs available when they are due."""

from math import inf
from typing import Any

import psycopg

from qworker.maintenance import Maintenance
from qworkerd.scheduler.periodic import Periodic
from qworkerd.scheduler.sparing import LIMIT, Sparing

Database = psycopg.Connection[tuple[Any, ...]]

#: How far behind the clock a scan starts (seconds): a job may be committed after it was due.
SCAN_BEHIND = 60.0
#: Interval of scans that start at the beginning (seconds), for jobs that were committed even later.
FULL_SCAN_EVERY = 30.0


class Promotion:
    """Scans the index of scheduled jobs from a little behind the clock, past the dead entries an old snapshot keeps."""

    def __init__(self, maintenance: Maintenance) -> None:
        self._maintenance = maintenance
        self._sparing = Sparing("promote")
        self._full_scan = Periodic(FULL_SCAN_EVERY)
        self._start = 0.0

    def start(self, at: float) -> float:
        """Return where the next scan starts (seconds since 1970); `at` is the database's clock at the last poll."""
        self._start = -inf if self._full_scan.is_due else at - SCAN_BEHIND
        return self._start

    def promote(self, database: Database, due_in: float | None) -> int:
        """Make due jobs available and return their number; due_in is the time until the first is due (seconds)."""
        promoted = 0
        if due_in is not None and due_in <= 0:
            promoted = len(
                self._sparing.run(
                    database,
                    lambda limit, excluded: self._maintenance.promote(
                        database, self._start, limit=limit, excluded=excluded
                    ),
                    lambda excluded: self._maintenance.first_due(database, self._start, excluded),
                )
            )
        if self._start == -inf and promoted < LIMIT:
            self._full_scan.restart()
        return promoted
