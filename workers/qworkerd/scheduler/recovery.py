"""Recover the jobs of dead workers, and of claims that no process of this node holds."""

from math import inf
from time import monotonic
from typing import Any

import psycopg

from qworker.recovery import Recovery
from qworker.registry import PollResult
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]

#: A token that no slot holds is released once it has been seen for this long (seconds).
CONFIRM_AFTER = 5.0


class DeadWorkers:
    """Recovers the jobs of this node's dead workers. Tokens fence every statement, so recovery can be repeated."""

    def __init__(self, node: NodeContext, recovery: Recovery, slot: Slot, reporter: Reporter) -> None:
        self._node = node
        self._slot = slot
        self._recovery = recovery
        self._settlement = Settlement(node, recovery, reporter)
        self._unknown_tokens: dict[int, float] = {}
        self._since = 0.0
        self._settled_at = 0.0
        #: The time from which the last poll searched for claims; its result does not cover older ones.
        self._queried_since = 0.0
        #: The earliest such time of all polls since `reconcile` last ran.
        self._earliest_since = inf
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

    def since(self, settled_at: float) -> float:
        """Return the time (seconds since 1970) from which the next poll has to search for claims of this node.

        settled_at: every claim made before that time was committed before this poll.
        """
        self._settled_at = settled_at
        self._earliest_since = min(self._earliest_since, settled_at - 1.0)
        self._queried_since = min(self._since, self._earliest_since)
        return self._queried_since

    def reconcile(self, database: Database, result: PollResult) -> int:
        """Release jobs that the database says this node runs but no slot holds; return their number.

        Such claims were committed after their worker died, or their answer was lost. If the poll has seen no claims at
        all, the query for them is skipped.
        """
        now = monotonic()
        rows = (
            self._recovery.running(database, self._node.table.header.node, self._queried_since)
            if result.has_running
            else []
        )
        self._earliest_since = inf
        # Read the slots after the database: a token is written to its slot before the claim is sent.
        known = self._node.table.tokens()
        # Not before 1970: a hand-edited row may contain an earlier time, and PostgreSQL's calendar starts in 4714 BC.
        self._since = max(0.0, min([self._settled_at, *(claimed for _, _, claimed in rows)]) - 1.0)
        seen = {token for _, token, _ in rows} - known
        self._unknown_tokens = {token: self._unknown_tokens.get(token, now) for token in seen}
        freed = 0
        for token in [t for t, first in self._unknown_tokens.items() if now - first >= CONFIRM_AFTER]:
            freed += self._settlement.release(database, token)
            del self._unknown_tokens[token]
        if freed:
            self._node.watermarks.report_release(self._slot)
            self._log.warning("jobs.reconciled", jobs=freed, hint="claimed for this node, held by no worker")
        self._settlement.raise_refusal()
        return freed
