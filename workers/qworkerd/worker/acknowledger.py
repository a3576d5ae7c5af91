"""The acknowledger: a thread that writes outcomes to the database while the main thread runs the next jobs."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic

from qworker.claims import Claims
from qworkerd import log
from qworkerd.outcomes.outcome import Outcome, Released
from qworkerd.outcomes.writes import Done, group
from qworkerd.process import exits
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.shared.claim import Claim
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot
from qworkerd.shared.tally import TallyWriter
from qworkerd.worker.batch import Batch
from qworkerd.worker.line_store import LineStore
from qworkerd.worker.write_queue import WriteQueue

#: Interval at which a running batch is checked (seconds).
WATCH_INTERVAL = 0.05
#: After this time a running job's batch is released to other workers (seconds).
RELEASE_AFTER = 0.1
#: Minimum interval between two writes of progress (seconds).
PROGRESS_INTERVAL = 1.0


class Acknowledger:
    """Settles finished jobs within 100 ms, even while a handler blocks, and releases jobs that wait behind a long one.

    The main thread submits outcomes and wakes this thread once per batch; a single job needs neither a lock nor a
    wakeup. Outcomes that are not yet settled stay in the slot, and so survive this process.
    """

    def __init__(
        self, node: NodeContext, slot: Slot, name: str, tally: TallyWriter,
        on_end: Callable[[Iterable[int]], None] | None = None,
    ) -> None:  # fmt: skip
        """Take a function that is called with the jobs that may have ended, when their writes are committed."""
        self._node = node
        self._slot = slot
        self._claims = Claims(node.settings.schema)
        self._connection = ReconnectingConnection(node, name, self._sleep, self._out_of_time)
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._writes = WriteQueue(node, slot, self._connection, tally, self._extend_deadline, on_end)
        #: The log lines of ended attempts, which the main thread adds before it submits their outcomes.
        self.lines = LineStore(node.settings.schema, self._connection)
        self._stop_deadline: float | None = None
        self._progress_written = 0.0
        self._log = log.get()
        self._thread = threading.Thread(target=self._serve, name="acknowledger", daemon=True)
        self._written = threading.Event()
        self._iterations = 0
        self._busy = False
        self._sleeping = False
        # Finished jobs in the order in which they ended; the main thread appends.
        self._submitted: deque[Done] = deque()
        #: The batch that the main thread is running.
        self.batch: Batch | None = None
        #: The newest progress: claim, job, JSON.
        self.progress: tuple[Claim, int, str] | None = None

    # The main thread's side

    def start(self) -> None:
        """Start the thread. It inherits the caller's signal mask, so call it while signals are blocked."""
        self._thread.start()

    def submit(self, claim: Claim, job: int, outcome: Outcome | None) -> None:
        """Settle a job that has ended; None: it completed in less than a millisecond and returned None.

        All outcomes are settled by this method. It does not wake the thread.
        """
        self._submitted.append((claim, job, outcome))

    @property
    def backlog(self) -> int:
        """The number of outcomes that the thread has not collected."""
        return len(self._submitted)

    def watch(self, batch: Batch) -> None:
        """Check a batch periodically while it runs."""
        self.batch = batch
        if self._sleeping:
            self.wake()

    def wake(self) -> None:
        """Wake the thread now."""
        if self._wakeups.empty():
            self._wakeups.put(None)

    def flush(self, timeout: float) -> bool:
        """Wait until each submitted outcome has been written or tried once; return False after `timeout` seconds.

        Writes for jobs that another session has locked are repeated later, and are not waited for.
        """
        until, started = monotonic() + timeout, self._iterations
        # Two iterations: the current one may have begun earlier, and the outcomes that it collected are not visible
        # here.
        while (self._submitted or self._writes or self._busy) and self._iterations < started + 2:
            self._written.clear()
            self.wake()
            if not self._written.wait(max(0.0, until - monotonic())):
                return False
        return True

    @property
    def is_done(self) -> bool:
        """Whether everything submitted is stored."""
        return not (self._submitted or self._writes or self._busy)

    def release(self, batch: Batch) -> int:
        """Release the remaining jobs of a batch; return their number."""
        jobs = list(batch.pop_all())
        if jobs:
            outcome = Released(min(job.seq for job in jobs))
            for job in jobs:
                self.submit(batch.claim, job.id, outcome)
        return len(jobs)

    def stop(self, timeout: float) -> bool:
        """Settle everything and stop; return False if that takes longer than `timeout` seconds."""
        self._stop_deadline = monotonic() + timeout
        self._wakeups.put(None)
        self._thread.join(timeout + 1.0)
        return not (self._submitted or self._writes or self._thread.is_alive())

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
            if self.lines:
                self.lines.write()
            self._write_due()
            self._write_progress()
            self._busy = False
            self._iterations += 1
            self._written.set()
            if self._stop_deadline is not None and (not (self._submitted or self._writes) or self._out_of_time()):
                break
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        self._connection.drop()

    def _wait(self) -> None:
        """Wait for a wakeup; while a batch runs or a write is left, no longer than the interval."""
        self._slot.floats[Slot.ACK_DEADLINE] = 0.0
        # Set before the check: either this thread sees the new batch, or `watch` sees that this thread sleeps.
        self._sleeping = True
        waiting = self.batch is not None or self._writes or self._stop_deadline is not None
        self._sleeping = not waiting
        with suppress(queue.Empty):
            self._wakeups.get(timeout=WATCH_INTERVAL if waiting else None)
        self._sleeping = False
        self._extend_deadline()

    def _extend_deadline(self) -> None:
        """Extend the deadline by which the supervisor expects the next sign of life of this thread."""
        self._slot.floats[Slot.ACK_DEADLINE] = monotonic() + 2 * self._node.settings.stall_timeout

    def _sleep(self, seconds: float) -> None:
        """Wait before the next attempt to connect."""
        self._extend_deadline()
        threading.Event().wait(seconds)

    def _out_of_time(self) -> bool:
        return self._stop_deadline is not None and monotonic() >= self._stop_deadline

    def _collect(self) -> None:
        """Group finished jobs into writes; release jobs that wait behind a long one, or whose queue may be paused."""
        batch = self.batch
        if (
            batch is not None
            and batch.pending
            and (
                monotonic() - self._slot.floats[Slot.STARTED] > RELEASE_AFTER
                # A queue of the batch may have been paused meanwhile.
                or batch.changes != self._node.paused.changes
            )
        ):
            self.release(batch)
        if self._submitted:
            self._busy = True  # set before `done` is empty
            self._writes.add(group(self._pop_done()))

    def _pop_done(self) -> Iterator[Done]:
        while self._submitted:
            yield self._submitted.popleft()

    def _write_due(self) -> None:
        """Run the writes that are due."""
        self._busy = self._busy or bool(self._writes)
        self._writes.run_due()

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
