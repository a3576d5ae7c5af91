"""Promote jobs whose time has come."""

from math import inf
from time import monotonic
from typing import Any

import psycopg

from qworker.nodes import Nodes

Database = psycopg.Connection[tuple[Any, ...]]

#: How far behind the clock a walk starts (seconds): a job may be committed after it was due.
SCAN_BEHIND = 60.0
#: So often it starts at the beginning (seconds), for what was committed later still.
FULL_SCAN_EVERY = 30.0
#: How many jobs one statement promotes.
PROMOTE_LIMIT = 1000


class Promotion:
    """Walks the index of scheduled jobs from a little behind the clock, not over all that an old snapshot holds."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._completed = -FULL_SCAN_EVERY
        self._start = 0.0

    def start(self, at: float) -> float:
        """Return where the next walk starts (seconds since 1970); `at` is the database's clock as last seen."""
        complete = monotonic() - self._completed >= FULL_SCAN_EVERY
        self._start = -inf if complete else at - SCAN_BEHIND
        return self._start

    def promote(self, database: Database, due_in: float | None) -> int:
        """Make due jobs available, given in how many seconds the first one is; return how many."""
        promoted = 0
        if due_in is not None and due_in <= 0:
            promoted = len(self._nodes.promote(database, self._start))
        if self._start == -inf and promoted < PROMOTE_LIMIT:
            self._completed = monotonic()
        return promoted
