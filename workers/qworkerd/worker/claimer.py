"""Claim jobs: how many, from which position, and under which token."""

from collections.abc import Sequence
from operator import attrgetter
from time import monotonic

import psycopg

from qworker.claims import ClaimedJob, Claims
from qworker.origins import Origins
from qworkerd import log
from qworkerd.process.reconnect import LOST, ReconnectingConnection
from qworkerd.shared.claim import UNKNOWN_TASK, Claim, new_token
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.tally import TallyWriter
from qworkerd.worker.batch import Batch
from qworkerd.worker.batch_size import BatchSize
from qworkerd.worker.cursors import Cursors
from qworkerd.worker.single import UNREADABLE, SingleClaims, may_be_one_job

_by_urgency = attrgetter("priority", "seq")
#: The columns of a claim that are stored in the slot and counted.
_ID, _QUEUE, _TASK, _ATTEMPT, _WAITED = map(ClaimedJob._fields.index, ("id", "queue", "task", "attempt", "waited"))

#: Delay after a claim that the server has rejected, and after one in which the connection was lost (seconds).
RETRY_AFTER_REJECTION, RETRY_AFTER_LOSS = 1.0, 0.1

#: Minimum interval of the checks whether a trigger has suppressed a claim that returned no job (seconds).
PROBE_INTERVAL = 1.0


class Claimer:
    """Claims jobs for one worker."""

    def __init__(self, node: NodeContext, slot: Slot, connection: ReconnectingConnection, tally: TallyWriter) -> None:
        settings = node.settings
        self._node = node
        self._origins = node.app.origins
        self._tally = tally
        self._series = tally.numbers
        self._slot = slot
        self._connection = connection
        self._stall = settings.stall_timeout
        self._claims = Claims(settings.schema)
        self._order = {queue: number for number, queue in enumerate(settings.queues)}
        self._numbers = {name: number for number, name in enumerate(node.tasks)}
        self._log = log.get()
        self._single = SingleClaims(node, slot, connection, self._claims, tally)
        self.batch_size = BatchSize(settings.max_batch)
        self.cursors = Cursors(node.watermarks, settings.processes)
        self._generation = 1
        #: Whether the last claim found no more jobs.
        self.exhausted = True
        #: When the next of these checks may be made (monotonic).
        self._probe_at = 0.0
        self._changes = 0
        #: Delay before the next claim (seconds).
        self.retry_in = 0.0

    def claim(self, claim: Claim) -> Batch | None:
        """Claim a batch into a free claim of the slot; return None if there are no jobs or the claim failed."""
        budget = self._node.budget
        size = budget.reserve(self.batch_size.size)
        rows = self._send(claim, size) if size else []
        budget.restore(size - len(rows))
        if not rows:
            claim.close()
            return None
        rows.sort(key=_by_urgency)
        if len(self._order) > 1:
            rows.sort(key=lambda row: self._order[row.queue])
        columns, count, number_of = tuple(zip(*rows, strict=True)), len(rows), self._numbers.get
        queues, tasks = columns[_QUEUE], columns[_TASK]
        if tasks.count(tasks[0]) == queues.count(queues[0]) == count:
            claim.fill(columns[_ID], [number_of(tasks[0], UNKNOWN_TASK)] * count, columns[_ATTEMPT])
            series = [self._series[queues[0], tasks[0]]] * count
        else:
            claim.fill(columns[_ID], [number_of(task, UNKNOWN_TASK) for task in tasks], columns[_ATTEMPT])
            series = [self._series[names] for names in zip(queues, tasks, strict=True)]
        claim.count_as(series, list(columns[_WAITED]))
        if self._origins is not None:
            self._read_origins(self._origins, columns[_ID])
        return Batch(claim, rows, self._changes)

    def _read_origins(self, origins: Origins, ids: Sequence[int]) -> None:
        """Read where jobs come from. Without this, their spans have no parent, and they run nevertheless."""
        self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
        try:
            if (database := self._connection.get()) is not None:
                origins.read(database, ids)
        except (psycopg.Error, UnicodeError, MemoryError) as error:
            self._log.warning("claim.origins_unknown", error=str(error).strip(), jobs=len(ids))

    def close(self) -> None:
        """Send the reports about jobs that could not be claimed."""
        self._single.close()

    def _send(self, claim: Claim, size: int) -> list[ClaimedJob]:
        """Send one claim, after its token is stored in shared memory.

        If the result is lost, the claim may nevertheless have been committed. Its token is not used any more, and the
        scheduler releases jobs whose token is in no slot.
        """
        self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
        self.retry_in = 0.0
        watermarks = self._node.watermarks
        database = self._connection.get()
        if database is None:
            return []
        if (
            self._connection.generation != self._generation
        ):  # the server may be another one, and its sequence behind the old one's
            self._generation = self._connection.generation
            self.cursors.reset()
            watermarks.report_release(self._slot)
        paused = self._node.paused
        self._changes = paused.changes  # read before the lanes: a later change releases the batch
        if paused.all:
            self.exhausted = True
            return []
        single = bool(self._single)  # a larger claim would include a job that cannot be claimed
        size = 1 if single else size
        started = monotonic()
        cursors, sweep = self.cursors.start(size, idle=self.exhausted)
        cursors = paused.exclude(cursors)
        claim.open(new_token())
        try:
            rows = self._single.claim_next(claim, cursors) if single else self._claims.claim(
                database, node=self._node.table.header.node, token=claim.token, queues=watermarks.queues,
                priorities=watermarks.priorities, cursors=cursors, limit=size,
            )  # fmt: skip
            if not (rows or single) and started >= self._probe_at:
                self._probe_at = started + PROBE_INTERVAL
                if self._single.suppressed(database, claim, cursors):
                    single, rows = True, self._single.claim_next(claim, cursors)
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
        duration = monotonic() - started
        self._tally.claimed(len(rows), duration)
        self.cursors.advance(rows, size, sweep=sweep, duration=duration)
        self.exhausted = len(rows) < size
        if not self.exhausted:
            self._node.worker_wakeup.wake()  # there may be more: one worker wakes the next
        return rows

    def _recover(
        self, error: Exception, claim: Claim, cursors: list[int], size: int, *, single: bool
    ) -> list[ClaimedJob]:
        """Continue after a failed claim: with fewer jobs, with a single job if one row may be the cause, or later."""
        usable = isinstance(error, psycopg.Error) and self._connection.usable_after(error)
        try:
            if not isinstance(error, psycopg.Error):
                return self._single.read_claimed(claim, whole=isinstance(error, UnicodeError) or size == 1)
            if isinstance(error, UNREADABLE) and size > 1:
                return []
            if usable and not single and may_be_one_job(error):
                return self._single.claim_next(claim, cursors)
        except psycopg.Error as retry_error:  # the scheduler releases jobs that are claimed but in no slot
            self._log.warning("claim.error", error=str(retry_error).strip(), jobs=1)
            self._connection.usable_after(retry_error)
        self.retry_in = RETRY_AFTER_LOSS if isinstance(error, LOST) and not usable else RETRY_AFTER_REJECTION
        return []
