"""The writes of a worker that the database has not confirmed; each is repeated until it is confirmed."""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import psycopg

from qworker.claims import Claims
from qworker.recovery import Recovery
from qworker.triggers import suppressing_triggers
from qworkerd import log
from qworkerd.outcomes.counting import count_acknowledged
from qworkerd.outcomes.last_resort import ABANDONED, LAST_RESORT, GiveUp
from qworkerd.outcomes.unconfirmed import count_unconfirmed
from qworkerd.outcomes.writes import CompleteWrite, OutcomeWrite, ReleaseWrite, Write, raise_if_suppressed
from qworkerd.process.reconnect import ReconnectingConnection, is_transient
from qworkerd.shared.claim import Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.series import PROCESS
from qworkerd.shared.slots import Slot
from qworkerd.shared.tally import ProcessCounter, TallyWriter

#: A constraint or a user's trigger rejects the row, possibly temporarily. No value is the cause, so none is dropped.
REJECTED_ROW = (psycopg.IntegrityError, psycopg.errors.RaiseException)
#: If a write fails for this long with an error that is not the database's, a handler has broken the process (seconds).
BROKEN_AFTER = 3.0


class WriteQueue:
    """Runs writes in the acknowledger's thread. A write leaves the queue only when its jobs are settled."""

    def __init__(
        self, node: NodeContext, slot: Slot, connection: ReconnectingConnection, tally: TallyWriter,
        on_progress: Callable[[], None],
        on_end: Callable[[Iterable[int]], None] | None = None,
    ) -> None:  # fmt: skip
        self._node = node
        self._slot = slot
        self._claims = Claims(node.settings.schema)
        self._recovery = Recovery(node.settings.schema)
        self._connection = connection
        self._tally = tally
        self._on_progress = on_progress
        self._on_end = on_end
        self._writes: list[Write] = []
        self._log = log.get()

    def __bool__(self) -> bool:
        """Return whether writes are left."""
        return bool(self._writes)

    def add(self, writes: Iterable[Write]) -> None:
        """Add writes, which are due at once."""
        self._writes += writes

    def run_due(self) -> None:
        """Run the writes that are due, and keep those that did not succeed."""
        now, left = monotonic(), []
        writes, self._writes = self._writes, []
        for number, write in enumerate(writes):
            if write.due > now:
                left.append(write)
                continue
            database = self._connection.get()
            if database is None:
                left += writes[number:]
                break
            try:
                if not self._run(write, database):
                    left.append(write)
            except Exception as error:  # noqa: BLE001 - whatever it is, no outcome may be lost
                left += self._on_error(write, error)
        self._writes = left + self._writes

    def _on_error(self, write: Write, error: Exception) -> list[Write]:
        """Decide how to continue after an error; a write is never dropped.

        Raises the error if the process is broken: it ends then, and the scheduler settles its jobs by their outcomes.
        """
        self._log.warning(
            "acknowledge.error", write=write.kind, jobs=len(write.ids), error=str(error).strip(),
            type=type(error).__name__,
        )  # fmt: skip
        lost = not self._connection.usable_after(error)
        write.uncertain = write.uncertain or lost
        too_long = isinstance(error, psycopg.errors.QueryCanceled) and len(write.ids) > 1
        if is_transient(error) and not too_long:
            write.postpone(0.0 if lost else monotonic())
            return [write]
        if len(write.ids) > 1:  # a single job may be the cause, or the statement takes too long for all of them
            return [write, write.split()]
        now = monotonic()
        write.rejected_since = write.rejected_since or now
        if not isinstance(error, psycopg.Error) and now - write.rejected_since > BROKEN_AFTER:
            raise error
        if now - write.rejected_since > LAST_RESORT:
            return self._give_up(write, error)
        if not isinstance(error, REJECTED_ROW):
            write.drop_details()
        write.postpone(now)
        return [write]

    def _give_up(self, write: Write, error: Exception) -> list[Write]:
        """Fail a job whose end is rejected. If that is rejected too, abandon it, so that its claim can be closed."""
        text = str(error).strip()
        if not isinstance(write, GiveUp):
            self._log.error("job.end_refused", jobs=write.ids, error=text, hint="the job is failed instead")
            return [GiveUp(write, error)]
        self._log.critical("job.abandoned", jobs=write.ids, error=text, hint=ABANDONED)
        write.claim.unsettled -= len(write.ids)
        if write.claim.unsettled == 0:
            write.claim.close()
        return []

    def _run(self, write: Write, database: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Run one write; return whether it is finished. Jobs that another session has locked are tried again."""
        self._on_progress()
        started = monotonic()
        changed = write.write(self._claims, database)
        self._tally.acknowledged(monotonic() - started)
        count_acknowledged(self._tally, write, changed)
        if isinstance(write, ReleaseWrite):
            self._announce_release(write, changed)
        elif self._on_end is not None and write.ends:
            self._on_end(changed)
        finished = len(changed)
        if finished < len(write.ids):
            missing = set(write.ids).difference(changed)
            locked = self._claims.still_claimed(database, write.token, missing)
            if lost := missing - locked:
                self._on_lost_claim(write, database, lost)
            finished += len(lost)
            write.ids = [job for job in write.ids if job in locked]
            write.postpone(monotonic())
        else:
            write.ids = []
        write.claim.unsettled -= finished
        if write.claim.unsettled == 0:
            write.claim.close()
        if write.ids:
            raise_if_suppressed(self._claims, write, database)
        return not write.ids

    def _announce_release(self, write: ReleaseWrite, changed: list[int]) -> None:
        """Notify the node's other processes that jobs were released, possibly by an earlier attempt."""
        self._node.watermarks.report_release(self._slot, write.seq)
        if changed:
            # Before the budget is restored: if this process dies in between, the jobs must not be counted twice.
            write.claim.mark(set(changed), Status.DONE)
            self._node.budget.restore(len(changed))
            self._node.worker_wakeup.wake()

    def _on_lost_claim(self, write: Write, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]) -> None:
        """Handle jobs that no longer have this claim's token: an earlier attempt or another process settled them."""
        if write.uncertain:
            if isinstance(write, OutcomeWrite):
                confirmed = self._count_outcome(write, database, lost)
            else:
                confirmed = self._claims.already_archived(database, write.token, lost)
                if isinstance(write, CompleteWrite):
                    count_acknowledged(self._tally, write, confirmed)
            if self._on_end is not None:
                self._on_end(confirmed)
            lost = lost - confirmed
        if lost and write.uncertain and isinstance(write, OutcomeWrite):  # an executed snooze may have run again
            self._log.info("job.write_unconfirmed", jobs=sorted(lost), hint="the answer was lost with the connection")
        elif lost and self._has_archived(write, database, lost):
            self._log.error("job.history_suppressed", jobs=sorted(lost)[:20], count=len(lost),
                            hint="the jobs have ended, but a trigger on job_history suppresses their rows")  # fmt: skip
        elif lost:
            self._slot.words[Slot.STALE] += len(lost)
            self._tally.count(PROCESS, ProcessCounter.REFUSED, len(lost))
            self._log.warning("job.stale_write", write=write.kind, jobs=sorted(lost)[:20],
                              count=len(lost), hint="the claim had ended; nothing was changed")  # fmt: skip

    def _count_outcome(
        self, write: OutcomeWrite, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]
    ) -> set[int]:
        """Count the job if an earlier attempt of this write has been executed; return its id then."""
        claim = write.claim
        attempts = {entry.id: (entry.attempt, write.outcome) for entry in claim.entries() if entry.id in lost}
        known = dict(zip(claim.ids.tolist(), zip(claim.series, claim.waits, strict=True), strict=False))
        return count_unconfirmed(self._tally, self._recovery, database, claim, attempts, known)

    def _has_archived(self, write: Write, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]) -> bool:
        """Return whether this write has deleted the jobs, and a trigger has suppressed their rows in the history."""
        return (
            not isinstance(write, ReleaseWrite)
            and not self._claims.existing(database, lost)
            and bool(suppressing_triggers(database, self._node.settings.schema, "job_history"))
        )
