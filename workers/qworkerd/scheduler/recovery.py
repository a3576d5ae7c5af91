"""Obituaries and reconciliation: settle in the database what dead workers have left, and what nobody runs."""

from math import inf
from time import monotonic
from typing import Any

import psycopg

from qworker.nodes import Nodes, PollResult
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

Database = psycopg.Connection[tuple[Any, ...]]

#: A token that the database knows and no slot is freed when two looks so far apart have found it (seconds).
CONFIRM_AFTER = 5.0


class DeadWorkers:
    """Buries the dead of this node. Every statement is fenced by the claim's token, so burying twice does no harm."""

    def __init__(self, node: NodeContext, nodes: Nodes, slot: Slot, reporter: Reporter) -> None:
        self._node = node
        self._slot = slot
        self._nodes = nodes
        self._settlement = Settlement(node, nodes, reporter)
        self._unknown: dict[int, float] = {}
        self._since = 0.0
        self._settled_at = 0.0
        #: What the last look has asked for: its answer says nothing of older claims.
        self._asked = 0.0
        #: The earliest time any look was to ask for since `reconcile` has run.
        self._earliest = inf
        self._log = log.get()

    def recover(self, database: Database) -> int:
        """Settle every grave; return how many jobs became available.

        A grave that cannot be settled stays for the next time, and holds up neither others nor the rest of the round.
        """
        freed = 0
        for slot in self._node.table.dead():
            try:
                freed += self._recover_slot(database, slot)
            except Exception as error:  # a row that a trigger of the user's or its own contents make unwritable
                if database.closed:
                    raise
                self._log.warning(
                    "worker.recovery_failed", worker=slot.child, worker_pid=slot.pid, error=str(error).strip()
                )
        return freed

    def _recover_slot(self, database: Database, slot: Slot) -> int:
        self._nodes.end_sessions(database, slot.session_tag)
        freed = 0
        try:
            for claim in list(slot.open_claims()):
                freed += self._settlement.recover_claim(database, slot, claim)
                if not self._nodes.claim_jobs(database, self._node.table.header.node, claim.token):
                    claim.close()
        finally:
            self._node.watermarks.report_release(self._slot)  # also for what the dead had handed back and not told
        if not any(slot.open_claims()):
            self._log.info(
                "worker.jobs_recovered", worker=slot.child, worker_pid=slot.pid, cause=slot.cause, jobs_freed=freed
            )
            slot.free()
        return freed

    def since(self, settled_at: float) -> float:
        """Return the time (seconds since 1970) from which on the next look has to ask for claims that are out.

        settled_at: all claims older than that were committed before this look.
        """
        self._settled_at = settled_at
        self._earliest = min(self._earliest, settled_at - 1.0)
        self._asked = min(self._since, self._earliest)
        return self._asked

    def reconcile(self, database: Database, sight: PollResult) -> int:
        """Free what the database says this node runs and no slot knows; return how many jobs.

        Those are claims that committed after their worker had died, or whose answer was lost. A look that has seen no
        claim at all saves the question which ones there are.
        """
        now = monotonic()
        rows = self._nodes.running(database, self._node.table.header.node, self._asked) if sight.has_running else []
        self._earliest = inf
        # Slots are read after the database: a token stands in its slot before the claim is sent.
        known = self._node.table.tokens()
        # Not before 1970: a row that somebody has edited may say so, and the server's calendar ends in 4714 BC.
        self._since = max(0.0, min([self._settled_at, *(claimed for _, _, claimed in rows)]) - 1.0)
        seen = {token for _, token, _ in rows} - known
        self._unknown = {token: self._unknown.get(token, now) for token in seen}
        freed = 0
        for token in [t for t, first in self._unknown.items() if now - first >= CONFIRM_AFTER]:
            freed += self._nodes.release_claim(database, self._node.table.header.node, token)
            del self._unknown[token]
        if freed:
            self._node.watermarks.report_release(self._slot)
            self._log.warning("jobs.reconciled", jobs=freed, hint="claimed for this node, but by none of its workers")
        return freed
