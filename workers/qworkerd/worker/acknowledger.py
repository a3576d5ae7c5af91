"""The acknowledger: a thread that writes outcomes to the database while the main thread runs the next jobs."""

import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg

from qworker.claims import Claims
from qworkerd import log
from qworkerd.outcomes.outcome import Released
from qworkerd.outcomes.writes import ABANDONED, LAST_RESORT, Done, GiveUp, OutcomeWrite, ReleaseWrite, Write, group
from qworkerd.process import exits
from qworkerd.process.reconnect import ReconnectingConnection, may_pass_later
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

#: Interval at which a running batch is checked (seconds).
WATCH_INTERVAL = 0.05
#: After this time a running job's batch is released to other workers (seconds).
RELEASE_AFTER = 0.1
#: Minimum interval between two writes of progress (seconds).
PROGRESS_INTERVAL = 1.0
#: A constraint or a user's trigger rejects the row, possibly temporarily. No value is to blame, so none is dropped.
REFUSED_ROW = (psycopg.IntegrityError, psycopg.errors.RaiseException)


class Batch:
    """The jobs of a claim that were not started: the main thread takes the first, the acknowledger the last."""

    __slots__ = ("claim", "pending")

    def __init__(self, claim: Claim, rows: list[tuple[Any, ...]]) -> None:
        self.claim = claim
        self.pending = deque(rows)

    def pop_all(self) -> Iterator[tuple[Any, ...]]:
        """Remove and yield the remaining jobs one by one."""
        while True:
            try:
                row = self.pending.pop()
            except IndexError:
                return
            yield row


class Acknowledger:
    """Settles finished jobs within 100 ms, even while a handler blocks, and releases jobs that wait behind a long one.

    The main thread appends to `done` and wakes this thread once per batch; a single job needs neither a lock nor a
    wakeup. Outcomes that are not yet settled stay in the slot, and so survive this process.
    """

    def __init__(self, node: NodeContext, slot: Slot, name: str) -> None:
        self._node = node
        self._slot = slot
        self._claims = Claims(node.settings.schema)
        self._connection = ReconnectingConnection(node, name, self._pause, self._out_of_time)
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._writes: list[Write] = []
        self._stop_deadline: float | None = None
        self._progress_written = 0.0
        self._log = log.get()
        self._thread = threading.Thread(target=self._serve, name="acknowledger", daemon=True)
        self._written = threading.Event()
        self._rounds = 0
        self._busy = False
        self._asleep = False
        #: Finished jobs in the order in which they ended; the main thread appends.
        self.done: deque[Done] = deque()
        #: The batch that the main thread is running.
        self.batch: Batch | None = None
        #: The newest progress: claim, job, JSON.
        self.progress: tuple[Claim, int, str] | None = None

    # The main thread's side

    def start(self) -> None:
        """Start the thread. It inherits the caller's signal mask, so call it while signals are blocked."""
        self._thread.start()

    def watch(self, batch: Batch) -> None:
        """Check a batch periodically while it runs."""
        self.batch = batch
        if self._asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the thread now."""
        if self._wakeups.empty():
            self._wakeups.put(None)

    def flush(self, timeout: float) -> bool:
        """Wait until everything submitted has been tried once; return False after `timeout` seconds.

        Jobs that another session has locked are tried again later and not waited for.
        """
        until, started = monotonic() + timeout, self._rounds
        # Two rounds: the current one may have started earlier, and the writes that it has taken are not visible here.
        while (self.done or self._writes or self._busy) and self._rounds < started + 2:
            self._written.clear()
            self.wake()
            if not self._written.wait(max(0.0, until - monotonic())):
                return False
        return True

    @property
    def is_done(self) -> bool:
        """Whether everything submitted is stored."""
        return not (self.done or self._writes or self._busy)

    def release(self, batch: Batch) -> int:
        """Release the remaining jobs of a batch; return their number."""
        rows = list(batch.pop_all())
        if rows:
            outcome = Released(min(row[1] for row in rows))
            self.done.extend((batch.claim, row[0], outcome) for row in rows)
        return len(rows)

    def stop(self, timeout: float) -> bool:
        """Settle everything and stop; return False if that takes longer than `timeout` seconds."""
        self._stop_deadline = monotonic() + timeout
        self._wakeups.put(None)
        self._thread.join(timeout + 1.0)
        return not (self.done or self._writes or self._thread.is_alive())

    # The thread

    def _serve(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - without this thread no job would be settled
            try:
                self._log.critical("acknowledge.died", exc_info=error)
            finally:  # without memory for a log line, the process cannot work either
                os._exit(exits.SOFTWARE)

    def _work(self) -> None:
        while True:
            self._wait()
            self._collect()
            self._write_due()
            self._write_progress()
            self._busy = False
            self._rounds += 1
            self._written.set()
            if self._stop_deadline is not None and (not (self.done or self._writes) or self._out_of_time()):
                break
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        self._connection.drop()

    def _wait(self) -> None:
        """Wait to be woken; while a batch runs or a write is left, no longer than the interval."""
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        # Set this before the check: either this thread sees the batch, or `watch` sees that nobody watches it.
        self._asleep = True
        waiting = self.batch is not None or self._writes or self._stop_deadline is not None
        self._asleep = not waiting
        with suppress(queue.Empty):
            self._wakeups.get(timeout=WATCH_INTERVAL if waiting else None)
        self._asleep = False
        self._extend_deadline()

    def _extend_deadline(self) -> None:
        """Show the supervisor that this thread is running."""
        self._slot.floats[Slot.ACK_DEADLINE] = monotonic() + 2 * self._node.settings.stall_timeout

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt to connect."""
        self._extend_deadline()
        threading.Event().wait(seconds)

    def _out_of_time(self) -> bool:
        return self._stop_deadline is not None and monotonic() >= self._stop_deadline

    def _collect(self) -> None:
        """Group finished jobs into writes, and release jobs that wait behind a long one."""
        batch = self.batch
        if batch is not None and batch.pending and monotonic() - self._slot.floats[Slot.STARTED] > RELEASE_AFTER:
            self.release(batch)
        if self.done:
            self._busy = True  # set before `done` is empty
            self._writes += group(self._pop_done())

    def _pop_done(self) -> Iterator[Done]:
        while self.done:
            yield self.done.popleft()

    def _write_due(self) -> None:
        """Run the writes that are due, and keep those that did not succeed."""
        now, left = monotonic(), []
        self._busy = self._busy or bool(self._writes)
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
        """Decide how to continue after an error; a write is never dropped."""
        self._log.warning(
            "acknowledge.error", write=write.kind, jobs=len(write.ids), error=str(error).strip(),
            type=type(error).__name__,
        )  # fmt: skip
        lost = not self._connection.usable_after(error)
        write.uncertain = write.uncertain or lost
        too_long = isinstance(error, psycopg.errors.QueryCanceled) and len(write.ids) > 1
        if may_pass_later(error) and not too_long:
            write.postpone(0.0 if lost else monotonic())
            return [write]
        if len(write.ids) > 1:  # a single job may be to blame, or the statement takes too long for all of them
            return [write, write.split()]
        now = monotonic()
        write.refused = write.refused or now
        if now - write.refused > LAST_RESORT:
            return self._give_up(write, error)
        if not isinstance(error, REFUSED_ROW):
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
        write.claim.left -= len(write.ids)
        if write.claim.left == 0:
            write.claim.close()
        return []

    def _run(self, write: Write, database: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Run one write; return whether it is finished. Jobs that another session has locked are tried again."""
        self._extend_deadline()
        changed = write.write(self._claims, database)
        if isinstance(write, ReleaseWrite):
            self._announce_release(write, changed)
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
        write.claim.left -= finished
        if write.claim.left == 0:
            write.claim.close()
        return not write.ids

    def _announce_release(self, write: ReleaseWrite, changed: list[int]) -> None:
        """Tell the node's other processes that jobs were released, possibly by an earlier attempt."""
        self._node.watermarks.report_release(self._slot, write.seq)
        if changed:
            # Before the budget is restored: if this process dies in between, the jobs must not be counted twice.
            write.claim.mark(set(changed), Status.DONE)
            self._node.budget.restore(len(changed))
            self._node.worker_wakeup.wake()

    def _on_lost_claim(self, write: Write, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]) -> None:
        """Handle jobs that no longer have this claim's token: an earlier attempt settled them, or others took them."""
        if write.uncertain:
            lost = lost - self._claims.already_archived(database, write.token, lost)
        if write.uncertain and isinstance(write, OutcomeWrite):  # a retry that was executed leaves no trace to tell by
            self._log.info("job.write_unconfirmed", jobs=sorted(lost), hint="the answer was lost with the connection")
        elif lost:
            self._slot.words[Slot.STALE] += len(lost)
            self._log.warning("job.stale_write", write=write.kind, jobs=sorted(lost)[:20],
                              count=len(lost), hint="the claim was over; nothing was changed")  # fmt: skip

    def _write_progress(self) -> None:
        """Write the newest progress."""
        if self.progress is None or monotonic() - self._progress_written < PROGRESS_INTERVAL:
            return
        (claim, job, text), self.progress = self.progress, None
        database = self._connection.get()
        if database is None:
            return
        try:
            self._claims.progress(database, claim.token, job, text)
        except Exception as error:  # noqa: BLE001 - progress is not worth more than one attempt
            self._connection.usable_after(error)
        self._progress_written = monotonic()
