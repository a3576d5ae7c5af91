"""Takes jobs: how many, from where, and under which token."""

import json
from datetime import UTC, datetime
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

_by_urgency = itemgetter(2, 1)  # priority, place

#: How long to wait after a claim that the server has refused, and after one in which it hung up (seconds).
RETRY_AFTER_REFUSAL, RETRY_AFTER_LOSS = 1.0, 0.1

#: The answer is too large or cannot be made out: the same claim for fewer jobs may pass, and for one job tells which.
TOO_MUCH = (
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.OutOfMemory,
    psycopg.errors.DataError,
    psycopg.errors.InternalError_,
    psycopg.errors.DataCorrupted,
    UnicodeError,
    MemoryError,
)


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
        started = monotonic()
        cursors, sweep = self.cursors.start(size, idle=self.exhausted)
        claim.open(new_token())
        try:
            rows = self._claims.claim(
                database, node=self._node.table.header.node, token=claim.token, queues=floors.queues,
                priorities=floors.priorities, cursors=cursors, limit=size,
            )  # fmt: skip
        except (psycopg.Error, UnicodeError, MemoryError) as error:
            self._log.warning("claim.error", error=str(error).strip(), jobs=size)
            self.cursors.fail(sweep=sweep)
            self.exhausted = False
            self.batch_size.halve()
            if not isinstance(error, psycopg.Error):
                return self._read_claimed(claim, whole=isinstance(error, UnicodeError) or size == 1)
            survives = self._link.usable_after(error)
            if not isinstance(error, TOO_MUCH):
                self.retry_in = RETRY_AFTER_REFUSAL if survives or not isinstance(error, LOST) else RETRY_AFTER_LOSS
            elif size == 1 and survives:
                return self._take_unread(claim, cursors)
            return []
        self.cursors.advance(rows, size, sweep=sweep, took=monotonic() - started)
        self.exhausted = len(rows) < size
        if not self.exhausted:
            self._node.worker_wakeup.wake()  # there may be more: one worker wakes the next
        return rows

    def _take_unread(self, claim: Claim, cursors: list[int]) -> list[tuple[Any, ...]]:
        """Claim the next job without reading it, then read it."""
        database, floors = self._link.get(), self._node.watermarks
        if database is None:
            return []
        claim.open(new_token())
        try:
            job = self._claims.claim_one(
                database, node=self._node.table.header.node, token=claim.token, queues=floors.queues,
                priorities=floors.priorities, cursors=cursors,
            )  # fmt: skip
            return [] if job is None else self._read(database, claim, [job])
        except psycopg.Error as refused:
            return self._refused(refused)

    def _read_claimed(self, claim: Claim, *, whole: bool) -> list[tuple[Any, ...]]:
        """Read one by one what a claim has got whose answer was too much for this process; or hand it back."""
        database = self._link.get()
        if database is None:
            return []
        try:
            jobs = self._claims.claimed(database, self._node.table.header.node, claim.token)
            if whole:
                return self._read(database, claim, jobs)
            self._claims.release(database, claim.token, jobs)
            self._node.watermarks.report_release(self._slot)
        except psycopg.Error as refused:
            return self._refused(refused)
        return []

    def _read(self, database: psycopg.Connection[Any], claim: Claim, jobs: list[int]) -> list[tuple[Any, ...]]:
        """Read jobs that are claimed; one that cannot be read fails, and the others go on."""
        rows: list[tuple[Any, ...]] = []
        for job in jobs:
            self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
            try:
                rows += self._claims.read(database, claim.token, job)
            except TOO_MUCH as error:
                self._log.error("job.unreadable", job=job, error=str(error).strip())
                self._claims.fail(database, claim.token, job, error=_unreadable(error), hook=False)
        return rows

    def _refused(self, error: psycopg.Error) -> list[tuple[Any, ...]]:
        """Wait before the next claim; the scheduler frees what is claimed and stands in no slot."""
        self._link.usable_after(error)
        self._log.warning("claim.error", error=str(error).strip(), jobs=1)
        self.retry_in = RETRY_AFTER_REFUSAL
        return []


def _unreadable(error: Exception) -> str:
    return json.dumps({
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": "PayloadTooLarge", "cause": "unreadable",
        "message": f"the job cannot be read: {str(error).strip()[:1000]}", "traceback": "",
    })  # fmt: skip
