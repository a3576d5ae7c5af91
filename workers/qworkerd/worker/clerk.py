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
from qworkerd import exits, log
from qworkerd.claim import Claim, Status
from qworkerd.errand import Decision, Done, Errand, GiveUp, Release, sort
from qworkerd.link import LOST, REFUSED, ReconnectingConnection
from qworkerd.node import NodeContext
from qworkerd.outcome import Returned
from qworkerd.slots import Slot

#: How often the clerk looks at a running batch (seconds).
LOOK = 0.05
#: A job that runs for longer gives the rest of its batch to other workers (seconds).
LONG = 0.1
#: An end that the database refuses for what it says, and for longer (seconds), is given up: the job fails.
LAST_RESORT = 60.0
#: How often progress is written at most (seconds).
PROGRESS = 1.0
#: A constraint or somebody's trigger refuses the row, maybe for now: no value of ours is to blame, and none is dropped.
REFUSED_ROW = (psycopg.IntegrityError, psycopg.errors.RaiseException)


class Batch:
    """The rows of one claim that were not started: the main thread takes from the front, the clerk from the end."""

    __slots__ = ("claim", "pending")

    def __init__(self, claim: Claim, rows: list[tuple[Any, ...]]) -> None:
        self.claim = claim
        self.pending = deque(rows)

    def take_back(self) -> Iterator[tuple[Any, ...]]:
        """Take all that is left, one at a time."""
        while True:
            try:
                row = self.pending.pop()
            except IndexError:
                return
            yield row


class Clerk:
    """Settles finished jobs within 100 ms, also while a handler blocks, and hands back what waits behind a long one.

    The main thread appends to `done` and rings once a batch: no lock and no wake-up for a single job. What is not
    settled yet stays in the slot, and so survives this process.
    """

    def __init__(self, node: NodeContext, slot: Slot, name: str) -> None:
        self._node = node
        self._slot = slot
        self._claims = Claims(node.settings.schema)
        self._link = ReconnectingConnection(node, name, self._rest, self._hopeless)
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._errands: list[Errand] = []
        self._give_up_at: float | None = None
        self._reported = 0.0
        self._log = log.get()
        self._thread = threading.Thread(target=self._serve, name="clerk", daemon=True)
        self._settled = threading.Event()
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
            self.ring()

    def ring(self) -> None:
        """Have the clerk look now."""
        if self._bell.empty():
            self._bell.put(None)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over has been tried once; False when that takes longer than so many seconds.

        What somebody else has locked is tried again later, and not waited for.
        """
        until, begun = monotonic() + timeout, self._rounds
        # Two rounds: the one under way may have begun before. While it lasts, what it has taken over is out of sight.
        while (self.done or self._errands or self._busy) and self._rounds < begun + 2:
            self._settled.clear()
            self.ring()
            if not self._settled.wait(max(0.0, until - monotonic())):
                return False
        return True

    @property
    def is_done(self) -> bool:
        """Whether all that was handed over is stored."""
        return not (self.done or self._errands or self._busy)

    def give_back(self, batch: Batch) -> int:
        """Hand back what is left of a batch; return how many jobs."""
        rows = list(batch.take_back())
        if rows:
            outcome = Returned(min(row[1] for row in rows))
            self.done.extend((batch.claim, row[0], outcome) for row in rows)
        return len(rows)

    def stop(self, timeout: float) -> bool:
        """Settle everything and end; False when the database did not let it within so many seconds."""
        self._give_up_at = monotonic() + timeout
        self._bell.put(None)
        self._thread.join(timeout + 1.0)
        return not (self.done or self._errands or self._thread.is_alive())

    # The thread

    def _serve(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - a worker whose clerk is gone would run jobs that nobody settles
            self._log.critical("clerk.died", exc_info=error)
            os._exit(exits.SOFTWARE)

    def _work(self) -> None:
        while True:
            self._listen()
            self._take_over()
            self._settle()
            self._report()
            self._busy = False
            self._rounds += 1
            self._settled.set()
            if self._give_up_at is not None and (not (self.done or self._errands) or self._hopeless()):
                break
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        self._link.drop()

    def _listen(self) -> None:
        """Wait for the bell; while a batch runs or an errand is left, no longer than until the next look."""
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        # Said before looking: either this thread sees the batch, or `watch` sees that nobody looks.
        self._asleep = True
        waiting = self.batch is not None or self._errands or self._give_up_at is not None
        self._asleep = not waiting
        with suppress(queue.Empty):
            self._bell.get(timeout=LOOK if waiting else None)
        self._asleep = False
        self._breathe()

    def _breathe(self) -> None:
        """Show the supervisor that this thread is not stuck."""
        self._slot.floats[Slot.ACK_DEADLINE] = monotonic() + 2 * self._node.settings.stall_timeout

    def _rest(self, seconds: float) -> None:
        """Pause between two tries to connect."""
        self._breathe()
        threading.Event().wait(seconds)

    def _hopeless(self) -> bool:
        return self._give_up_at is not None and monotonic() >= self._give_up_at

    def _take_over(self) -> None:
        """Make errands of what is done, and of what waits behind a long job."""
        batch = self.batch
        if batch is not None and batch.pending and monotonic() - self._slot.floats[Slot.STARTED] > LONG:
            self.give_back(batch)
        if self.done:
            self._busy = True  # said before `done` is empty
            self._errands += sort(self._popped())

    def _popped(self) -> Iterator[Done]:
        while self.done:
            yield self.done.popleft()

    def _settle(self) -> None:
        """Run the errands whose time has come; keep those that the database did not take."""
        now, left = monotonic(), []
        self._busy = self._busy or bool(self._errands)
        errands, self._errands = self._errands, []
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
                left += self._excuse(errand, error)
        self._errands = left + self._errands

    def _excuse(self, errand: Errand, error: Exception) -> list[Errand]:
        """Decide how to go on with an errand that met an error: it is never dropped."""
        self._log.warning(
            "clerk.error", errand=type(errand).__name__.lower(), jobs=len(errand.ids), error=str(error).strip(),
            type=type(error).__name__,
        )  # fmt: skip
        lost = not self._link.usable_after(error)
        errand.uncertain = errand.uncertain or lost
        if isinstance(error, (*REFUSED, *LOST)):
            errand.put_off(0.0 if lost else monotonic())
            return [errand]
        if len(errand.ids) > 1:  # one of them is to blame, and must not hold up the others
            return [errand, errand.halve()]
        now = monotonic()
        errand.refused = errand.refused or now
        if now - errand.refused > LAST_RESORT:
            return self._despair(errand, error)
        if not isinstance(error, REFUSED_ROW):
            errand.simplify()
        errand.put_off(now)
        return [errand]

    def _despair(self, errand: Errand, error: Exception) -> list[Errand]:
        """Fail a job whose end is refused; when even that is, leave it: nothing may hold a claim for ever."""
        text = str(error).strip()
        if not isinstance(errand, GiveUp):
            self._log.error("job.end_refused", jobs=errand.ids, error=text, hint="the job is failed instead")
            return [GiveUp(errand, error)]
        self._log.critical("job.abandoned", jobs=errand.ids, error=text,
                           hint="the database refuses every change of this row: mend or delete it by hand")  # fmt: skip
        errand.claim.left -= len(errand.ids)
        if errand.claim.left == 0:
            errand.claim.close()
        return []

    def _run(self, errand: Errand, database: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Run one errand; tell whether it is over. What somebody else has locked is left for the next try."""
        self._breathe()
        changed = errand.write(self._claims, database)
        if isinstance(errand, Release):
            self._tell(errand, changed)
        gone = len(changed)
        if gone < len(errand.ids):
            missing = set(errand.ids).difference(changed)
            locked = self._claims.still_claimed(database, errand.token, missing)
            if lost := missing - locked:
                self._write_off(errand, database, lost)
            gone += len(lost)
            errand.ids = [job for job in errand.ids if job in locked]
            errand.put_off(monotonic())
        else:
            errand.ids = []
        errand.claim.left -= gone
        if errand.claim.left == 0:
            errand.claim.close()
        return not errand.ids

    def _tell(self, errand: Release, changed: list[int]) -> None:
        """Let the other processes of this node know what they may claim again; an earlier try may have done it."""
        self._node.watermarks.report_release(self._slot, errand.place)
        if changed:
            # Before the budget gets them back: should this process die in between, they must not be given back twice.
            errand.claim.mark(set(changed), Status.DONE)
            self._node.budget.give_back(len(changed))
            self._node.worker_wakeup.wake()

    def _write_off(self, errand: Errand, database: psycopg.Connection[tuple[Any, ...]], lost: set[int]) -> None:
        """These jobs no longer carry our token: an earlier try has settled them, or they were taken from us."""
        if errand.uncertain:
            lost = lost - self._claims.already_archived(database, errand.token, lost)
        if errand.uncertain and isinstance(errand, Decision):  # a retry that was executed leaves no trace to tell by
            self._log.info("job.settled_unheard", jobs=sorted(lost), hint="the answer was lost with the connection")
        elif lost:
            self._slot.words[Slot.STALE] += len(lost)
            self._log.warning("job.stale_write", errand=type(errand).__name__.lower(), jobs=sorted(lost)[:20],
                              count=len(lost), hint="the claim was over; nothing was changed")  # fmt: skip

    def _report(self) -> None:
        """Write the newest progress."""
        if self.progress is None or monotonic() - self._reported < PROGRESS:
            return
        (claim, job, text), self.progress = self.progress, None
        database = self._link.get()
        if database is None:
            return
        try:
            self._claims.progress(database, claim.token, job, text)
        except Exception as error:  # noqa: BLE001 - a report is not worth more
            self._link.usable_after(error)
        self._reported = monotonic()
