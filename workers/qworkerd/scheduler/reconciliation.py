"""Releases jobs that this node runs according to the database, but that none of its processes has."""

from math import inf
from time import monotonic

from qworker.db.statements import Database
from qworker.recovery import Recovery
from qworker.registry import PollResult
from qworkerd import log
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

#: Time for which a token must be in no slot before its jobs are released (seconds).
CONFIRM_AFTER = 5.0


class Reconciliation:
    """Compares the claims in the database with those in the slots.

    A claim that is in no slot was committed after its worker had died, or its result was lost.
    """

    def __init__(self, node: NodeContext, recovery: Recovery, slot: Slot, settlement: Settlement) -> None:
        self._node = node
        self._slot = slot
        self._recovery = recovery
        self._settlement = settlement
        self._unknown_tokens: dict[int, float] = {}
        self._since = 0.0
        self._settled_at = 0.0
        #: The time from which the last poll searched for claims; its result does not cover older ones.
        self._queried_since = 0.0
        #: The earliest such time of all polls since `release` last ran.
        self._earliest_since = inf
        self._log = log.get()

    def since(self, settled_at: float) -> float:
        """Return the time (seconds since 1970) from which the next poll has to search for claims of this node.

        settled_at: every claim made before that time was committed before this poll.
        """
        self._settled_at = settled_at
        self._earliest_since = min(self._earliest_since, settled_at - 1.0)
        self._queried_since = min(self._since, self._earliest_since)
        return self._queried_since

    def release(self, database: Database, result: PollResult) -> int:
        """Release the jobs of claims that are in no slot; return their number.

        If the poll has seen no claims at all, the query for them is skipped.
        """
        now = monotonic()
        running = (
            self._recovery.running(database, self._node.table.header.node, self._queried_since)
            if result.has_running
            else []
        )
        self._earliest_since = inf
        # Read the slots after the database: a token is written to its slot before the claim is sent.
        known = self._node.table.tokens()
        # Not before 1970: a row edited by hand may contain an earlier time, and PostgreSQL's calendar starts in 4714
        # BC.
        self._since = max(0.0, min([self._settled_at, *(job.claimed_at for job in running)]) - 1.0)
        seen = {job.token for job in running} - known
        self._unknown_tokens = {token: self._unknown_tokens.get(token, now) for token in seen}
        released = 0
        for token in [t for t, first in self._unknown_tokens.items() if now - first >= CONFIRM_AFTER]:
            released += self._settlement.release(database, token)
            del self._unknown_tokens[token]
        if released:
            self._node.watermarks.report_release(self._slot)
            self._log.warning("jobs.reconciled", jobs=released, hint="claimed for this node, held by no worker")
        self._settlement.raise_last()
        return released
