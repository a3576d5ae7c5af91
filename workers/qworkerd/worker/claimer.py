"""Takes jobs: how many, from where, and under which token."""

from operator import itemgetter
from time import monotonic
from typing import Any

import psycopg

from qworker.claims import Claims
from qworkerd import log
from qworkerd.process.reconnect import LOST, ReconnectingConnection
from qworkerd.shared.claim import UNKNOWN, Claim, new_token
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.worker.acknowledger import Batch
from qworkerd.worker.batch_size import BatchSize
from qworkerd.worker.cursors import Cursors
from qworkerd.worker.single import TOO_MUCH, SingleClaims, may_be_one_job

_by_urgency = itemgetter(2, 1)  # priority, place

#: How long to wait after a claim that the server has refused, and after one in which it hung up (seconds).
RETRY_AFTER_REFUSAL, RETRY_AFTER_LOSS = 1.0, 0.1


class Claimer:
    """Claims for one worker."""

    def __init__(self, node: NodeContext, slot: Slot, link: ReconnectingConnection) -> None:
        settings = node.settings
        self._node = node
        self._slot = slot
        self._link = link
        self._stall = settings.stall_timeout
        self._claims = Claims(settings.schema)
        self._order = {queue: number for number, queue in enumerate(settings.queues)}
        self._numbers = {name: number for number, name in enumerate(node.tasks)}
        self._log = log.get()
        self._single = SingleClaims(node, slot, link, self._claims)
        self.batch_size = BatchSize(settings.max_batch)
        self.cursors = Cursors(node.watermarks, settings.processes)
        self._generation = 1
        #: The last claim left nothing behind.
        self.exhausted = True
        #: How long to wait before the next claim (seconds).
        self.retry_in = 0.0

    def claim(self, claim: Claim) -> Batch | None:
        """Claim as many jobs as suit, into a free claim of the slot; None when there are none, or none could be had."""
        budget = self._node.budget
        size = budget.reserve(self.batch_size.size)
        rows = self._send(claim, size) if size else []
        budget.restore(size - len(rows))
        if not rows:
            claim.close()
            return None
        rows.sort(key=_by_urgency)
        if len(self._order) > 1:
            rows.sort(key=lambda row: self._order[row[3]])
        numbers = self._numbers
        claim.fill([r[0] for r in rows], [numbers.get(r[4], UNKNOWN) for r in rows], [r[6] for r in rows])
        return Batch(claim, rows)

    def _send(self, claim: Claim, size: int) -> list[tuple[Any, ...]]:
        """Send one claim; its token stands in memory before.

        A claim whose answer was lost may have been committed all the same: its token is given up here, and the
        scheduler frees jobs that carry a token no slot knows.
        """
        self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
        self.retry_in = 0.0
        floors = self._node.watermarks
        database = self._link.get()
        if database is None:
            return []
        if (
            self._link.generation != self._generation
        ):  # the server may be another one, and its sequence behind the old one's
            self._generation = self._link.generation
            self.cursors.forget()
            floors.report_release(self._slot)
        single = bool(self._single)  # a claim of many would meet a job that was refused
        size = 1 if single else size
        started = monotonic()
        cursors, sweep = self.cursors.start(size, idle=self.exhausted)
        claim.open(new_token())
        try:
            rows = self._single.take(claim, cursors) if single else self._claims.claim(
                database, node=self._node.table.header.node, token=claim.token, queues=floors.queues,
                priorities=floors.priorities, cursors=cursors, limit=size,
            )  # fmt: skip
        except (psycopg.Error, UnicodeError, MemoryError) as error:
            self._log.warning("claim.error", error=str(error).strip(), jobs=size)
            self.cursors.fail(sweep=sweep)
            self.exhausted = False
            self.batch_size.halve()
            return self._recover(error, claim, cursors, size, single=single)
        if single and not (rows or self._single.complete):
            self.cursors.fail(sweep=sweep)
            self.exhausted = False
            return []
        self.cursors.advance(rows, size, sweep=sweep, took=monotonic() - started)
        self.exhausted = len(rows) < size
        if not self.exhausted:
            self._node.worker_wakeup.wake()  # there may be more: one worker wakes the next
        return rows

    def _recover(
        self, error: Exception, claim: Claim, cursors: list[int], size: int, *, single: bool
    ) -> list[tuple[Any, ...]]:
        """Go on after a claim that failed: for fewer jobs, for a single one if a row may be to blame, or later."""
        survives = isinstance(error, psycopg.Error) and self._link.usable_after(error)
        try:
            if not isinstance(error, psycopg.Error):
                return self._single.read_claimed(claim, whole=isinstance(error, UnicodeError) or size == 1)
            if isinstance(error, TOO_MUCH) and size > 1:
                return []
            if survives and not single and may_be_one_job(error):
                return self._single.take(claim, cursors)
        except psycopg.Error as again:  # the scheduler frees what is claimed and stands in no slot
            self._log.warning("claim.error", error=str(again).strip(), jobs=1)
            self._link.usable_after(again)
        self.retry_in = RETRY_AFTER_LOSS if isinstance(error, LOST) and not survives else RETRY_AFTER_REFUSAL
        return []
