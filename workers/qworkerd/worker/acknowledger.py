"""The clerk: a thread that writes to the database what became of the jobs, while the main thread runs the next ones."""

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

#: How often the clerk looks at a running batch (seconds).
WATCH_INTERVAL = 0.05
#: A job that runs for longer gives the rest of its batch to other workers (seconds).
RELEASE_AFTER = 0.1
#: How often progress is written at most (seconds).
PROGRESS_INTERVAL = 1.0
#: A constraint or somebody's trigger refuses the row, maybe for now: no value of ours is to blame, and none is dropped.
REFUSED_ROW = (psycopg.IntegrityError, psycopg.errors.RaiseException)


class Batch:
    """The rows of one claim that were not started: the main thread takes from the front, the clerk from the end."""

    __slots__ = ("claim", "pending")

    def __init__(self, claim: Claim, rows: list[tuple[Any, ...]]) -> None:
        self.claim = claim
        self.pending = deque(rows)

    def take_rest(self) -> Iterator[tuple[Any, ...]]:
        """Take all that is left, one at a time."""
        while True:
            try:
                row = self.pending.pop()
            except IndexError:
                return
            yield row


class Acknowledger:
    """Settles finished jobs within 100 ms, also while a handler blocks, and hands back what waits behind a long one.

    The main thread appends to `done` and rings once a batch: no lock and no wake-up for a single job. What is not
    settled yet stays in the slot, and so survives this process.
    """

    def __init__(self, node: NodeContext, slot: Slot, name: str) -> None:
        self._node = node
        self._slot = slot
        self._claims = Claims(node.settings.schema)
        self._link = ReconnectingConnection(node, name, self._pause, self._out_of_time)
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._writes: list[Write] = []
        self._stop_deadline: float | None = None
        self._progress_written = 0.0
        self._log = log.get()
        self._thread = threading.Thread(target=self._serve, name="clerk", daemon=True)
        self._written = threading.Event()
        self._rounds = 0
        self._busy = False
        self._asleep = False
        #: Finished jobs, in the order they ended; the main thread appends.
        self.done: deque[Done] = deque()
        #: What the main thread is working on.
        self.batch: Batch | None = None
        #: The newest report of progress: claim, job, JSON text.
        self.progress: tuple[Claim, int, str] | None = None

    # The main thread's side

    def start(self) -> None:
        """Start the thread. It inherits the caller's signal mask, so call it while signals are blocked."""
        self._thread.start()

    def watch(self, batch: Batch) -> None:
        """Have the clerk look at a batch again and again while it runs."""
        self.batch = batch
        if self._asleep:
            self.wake()

    def wake(self) -> None:
        """Have the clerk look now."""
        if self._wakeups.empty():
            self._wakeups.put(None)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over has been tried once; False when that takes longer than so many seconds.

        What somebody else has locked is tried again later, and not waited for.
        """
        until, begun = monotonic() + timeout, self._rounds
        # Two rounds: the one under way may have begun before. While it lasts, what it has taken over is out of sight.
        while (self.done or self._writes or self._busy) and self._rounds < begun + 2:
            self._written.clear()
            self.wake()
            if not self._written.wait(max(0.0, until - monotonic())):
                return False
        return True

    @property
    def is_done(self) -> bool:
        """Whether all that was handed over is stored."""
        return not (self.done or self._writes or self._busy)

    def release(self, batch: Batch) -> int:
        """Hand back what is left of a batch; return how many jobs."""
        rows = list(batch.take_rest())
        if rows:
            outcome = Released(min(row[1] for row in rows))
            self.done.extend((batch.claim, row[0], outcome) for row in rows)
        return len(rows)

    def stop(self, timeout: float) -> bool:
        """Settle everything and end; False when the database did not let it within so many seconds."""
        self._stop_deadline = monotonic() + timeout
        self._wakeups.put(None)
        self._thread.join(timeout + 1.0)
        return not (self.done or self._writes or self._thread.is_alive())

    # The thread

    def _serve(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - a worker whose clerk is gone would run jobs that nobody settles
            try:
                self._log.critical("acknowledge.died", exc_info=error)
            finally:  # where there is no memory to log it, there is none to work on either
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
        self._link.drop()

    def _wait(self) -> None:
        """Wait for the bell; while a batch runs or an errand is left, no longer than until the next look."""
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        # Said before looking: either this thread sees the batch, or `watch` sees that nobody looks.
        self._asleep = True
        waiting = self.batch is not None or self._writes or self._stop_deadline is not None
        self._asleep = not waiting
        with suppress(queue.Empty):
            self._wakeups.get(timeout=WATCH_INTERVAL if waiting else None)
        self._asleep = False
        self._extend_deadline()

    def _extend_deadline(self) -> None:
        """Show the supervisor that this thread is not stuck."""
        self._slot.floats[Slot.ACK_DEADLINE] = monotonic() + 2 * self._node.settings.stall_timeout

    def _pause(self, seconds: float) -> None:
        """Pause between two tries to connect."""
        self._extend_deadline()
        threading.Event().wait(seconds)

    def _out_of_time(self) -> bool:
        return self._stop_deadline is not None and monotonic() >= self._stop_deadline

    def _collect(self) -> None:
        """Make errands of what is done, and of what waits behind a long job."""
        batch = self.batch
        if batch is not None and batch.pending and monotonic() - self._slot.floats[Slot.STARTED] > RELEASE_AFTER:
            self.release(batch)
        if self.done:
            self._busy = True  # said before `done` is empty
            self._writes += group(self._popped())

    def _popped(self) -> Iterator[Done]:
        while self.done:
            yield self.done.popleft()

    def _write_due(self) -> None:
        """Run the errands whose time has come; keep those that the database did not take."""
        now, left = monotonic(), []
        self._busy = self._busy or bool(self._writes)
        errands, self._writes = self._writes, []
        for number, errand in enumerate(errands):
            if errand.due > now:
                left.append(errand)
                continue
            database = self._link.get()
            if database is None:
                left += errands[number:]
                break
            try:
                if not self._run(errand, database):
                    left.append(errand)
            except Exception as error:  # noqa: BLE001 - whatever it was, what is finished must not be forgotten
                left += self._on_error(errand, error)
        self._writes = left + self._writes

    def _on_error(self, errand: Write, error: Exception) -> list[Write]:
        """Decide how to go on with an errand that met an error: it is never dropped."""
        self._log.warning(
            "acknowledge.error", errand=type(errand).__name__.lower(), jobs=len(errand.ids), error=str(error).strip(),
            type=type(error).__name__,
        )  # fmt: skip
        lost = not self._link.usable_after(error)
        errand.uncertain = errand.uncertain or lost
        too_long = isinstance(error, psycopg.errors.QueryCanceled) and len(errand.ids) > 1
        if may_pass_later(error) and not too_long:
            errand.postpone(0.0 if lost else monotonic())
            return [errand]
        if len(errand.ids) > 1:  # one of them is to blame, and must not hold up the others, or all take too long
            return [errand, errand.split()]
        now = monotonic()
        errand.refused = errand.refused or now
        if now - errand.refused > LAST_RESORT:
            return self._despair(errand, error)
        if not isinstance(error, REFUSED_ROW):
            errand.drop_details()
        errand.postpone(now)
        return [errand]

    def _despair(self, errand: Write, error: Exception) -> list[Write]:
        """Fail a job whose end is refused; when even that is, leave it: nothing may hold a claim for ever."""
        text = str(error).strip()
        if not isinstance(errand, GiveUp):
            self._log.error("job.end_refused", jobs=errand.ids, error=text, hint="the job is failed instead")
            return [GiveUp(errand, error)]
        self._log.critical("job.abandoned", jobs=errand.ids, error=text, hint=ABANDONED)
        errand.claim.left -= len(errand.ids)
        if errand.claim.left == 0:
            errand.claim.close()
        return []

    def _run(self, errand: Write, database: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Run one errand; tell whether it is over. What somebody else has locked is left for the next try."""
        self._extend_deadline()
        changed = errand.write(self._claims, database)
        if isinstance(errand, ReleaseWrite):
            self._announce_release(errand, changed)
        gone = len(changed)
        if gone < len(errand.ids):
            missing = set(errand.ids).difference(changed)
            locked = self._claims.still_claimed(database, errand.token, missing)
            if lost := missing - locked:
                self._on_lost_claim(errand, database, lost)
            gone += len(lost)
            errand.ids = [job for job in errand.ids if job in locked]
            errand.postpone(monotonic())
        else:
            errand.ids = []
        errand.claim.left -= gone
        if errand.claim.left == 0:
            errand.claim.close()
        return not errand.ids

    def _announce_release(self, errand: ReleaseWrite, changed: list[int]) -> None:
        """Let the other processes of this node know what they may claim again; an earlier try may have done it."""
        self._node.watermarks.report_release(self._slot, errand.seq)
        if changed:
            # Before the budget gets them back: should this process die in between, they must not be given back twice.
            errand.claim.mark(set(changed), Status.DONE)
            self._node.budget.restore(len(changed))
            self._node.worker_wakeup.wake()

    def _on_lost_claim(self, errand: Write, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]) -> None:
        """These jobs no longer carry our token: an earlier try has settled them, or they were taken from us."""
        if errand.uncertain:
            lost = lost - self._claims.already_archived(database, errand.token, lost)
        if errand.uncertain and isinstance(
            errand, OutcomeWrite
        ):  # a retry that was executed leaves no trace to tell by
            self._log.info("job.write_unconfirmed", jobs=sorted(lost), hint="the answer was lost with the connection")
        elif lost:
            self._slot.words[Slot.STALE] += len(lost)
            self._log.warning("job.stale_write", errand=type(errand).__name__.lower(), jobs=sorted(lost)[:20],
                              count=len(lost), hint="the claim was over; nothing was changed")  # fmt: skip

    def _write_progress(self) -> None:
        """Write the newest progress."""
        if self.progress is None or monotonic() - self._progress_written < PROGRESS_INTERVAL:
            return
        (claim, job, text), self.progress = self.progress, None
        database = self._link.get()
        if database is None:
            return
        try:
            self._claims.progress(database, claim.token, job, text)
        except Exception as error:  # noqa: BLE001 - a report is not worth more
            self._link.usable_after(error)
        self._progress_written = monotonic()
