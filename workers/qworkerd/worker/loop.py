"""The worker: takes jobs, runs them, hands them over."""

import os
import select
import signal
from contextlib import suppress
from time import CLOCK_BOOTTIME, clock_gettime, monotonic
from typing import Any

from qworkerd import log
from qworkerd.process import exits
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.wakeup import WakeupPipe, readable
from qworkerd.worker.acknowledger import Acknowledger, Batch
from qworkerd.worker.claimer import Claimer
from qworkerd.worker.dispositions import BRIEF, Dispositions
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.psycopg_patch import register_interrupts
from qworkerd.worker.recycling import RecycleLimits, resident
from qworkerd.worker.runner import Runner
from qworkerd.worker.signal_handlers import SignalHandlers

#: Above so many unsettled jobs the main thread waits for the clerk.
BACKLOG = 512
#: A task whose last run took longer has the finished jobs before it settled first (seconds).
SLOW_TASK = 0.05
#: Between two looks at a lease that is out, or at claims that are all held open (seconds).
RECHECK_PAUSE = 0.05
#: How long the clerk may take to settle the last jobs of a process that ends (seconds).
FINAL_FLUSH_TIMEOUT = 5.0


class Worker:
    """Runs handlers in the main thread of a process of its own; `run` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        settings = node.settings
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.parent = os.getppid()
        self.wakeup = WakeupPipe()
        name = f"worker {slot.child} {slot.session_tag}"
        self.connection = ReconnectingConnection(node, name, self.interruptible_sleep, lambda: self.signals.stopping)
        self.claimer = Claimer(node, slot, self.connection)
        self.acknowledger = Acknowledger(node, slot, name)
        self.gate = InterruptGate()
        self.dispositions = Dispositions(self.gate, self.wakeup.write_fd)
        self.runner = Runner(node, slot, self.gate, self.acknowledger)
        self.signals = SignalHandlers(slot, self.gate, self.runner, settings.kill_grace)
        self.slow_task = ""  # the task whose last run was heavy
        self.limits = RecycleLimits(settings)
        self.poll = select.epoll()
        self.log = log.get()

    # Boot and end

    def boot(self) -> None:
        """Get ready while all signals are blocked, then open up."""
        log.bind_process(role="worker", worker=self.slot.child)
        os.environ["PGAPPNAME"] = f"qworker job {self.slot.child} {self.slot.session_tag}"
        if not register_interrupts():
            self.log.warning("psycopg.unsupported", hint="a query that is interrupted ends only with its process")
        self.poll.register(self.node.worker_wakeup.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self.poll.register(self.wakeup.fd, select.EPOLLIN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.acknowledger.start()
        self.dispositions.install({
            signal.SIGTERM: self.signals.on_term, signal.SIGQUIT: self.signals.on_quit,
            signal.SIGUSR1: self.signals.on_cancel, signal.SIGALRM: self.gate.fire,
        })  # fmt: skip
        self.connection.get()  # a worker is ready when it has met the database
        self.slot.enter(Phase.IDLE, self.stall())

    def run(self) -> int:
        """Work until told to stop, or worn out."""
        self.boot()
        code = exits.OK
        while not self.signals.stopping:
            if os.getppid() != self.parent or self.header.queues_empty or self.header.draining:
                break
            if self.header.node == 0 or self.clock() >= self.header.lease_until:
                self.slot.enter(Phase.IDLE, self.stall())
                self.interruptible_sleep(RECHECK_PAUSE)
                continue
            batch = self.claim()
            if batch is not None:
                self.work(batch)
                if self.should_recycle():
                    code = exits.RECYCLE
                    self.flush()
                    break
            elif self.node.budget.spent:
                self.node.worker_wakeup.wake()  # the next one that sleeps has nothing to wait for either
                self.flush()
                break
            elif self.claimer.exhausted and not self.signals.stopping:
                self.wait_for_work()
        return self.close(code)

    def close(self, code: int) -> int:
        """Settle what is finished and leave; what the database does not take now stays in the slot."""
        self.slot.enter(Phase.CLOSING, monotonic() + FINAL_FLUSH_TIMEOUT + self.node.settings.stall_timeout)
        self.gate.disarm()
        self.connection.drop()
        if not self.acknowledger.stop(FINAL_FLUSH_TIMEOUT):
            self.log.warning("worker.unacknowledged", hint="the scheduler settles what is left")
        with suppress(Exception):  # an application's pool must not keep a worker from leaving
            self.runner.close()
            self.node.app.close()
        return code

    def flush(self) -> None:
        """Wait until the database has been told what became of the jobs: a process that leaves takes failures with it.

        It is away if that takes long; nobody waits for a replacement then, which could not claim either.
        """
        while not self.signals.stopping and not self.acknowledger.flush(1.0):
            self.slot.enter(Phase.SETTLING, self.stall())

    def should_recycle(self) -> bool:
        """Tell whether the process has done its share, or was left in an unknown state by an interrupt."""
        limit = self.limits.reached(self.slot.words[Slot.DONE])
        if limit is not None:
            self.log.info("worker.recycled", limit=limit, jobs_done=self.slot.done, rss_mib=resident())
        return self.runner.tainted or limit is not None

    # Take

    def claim(self) -> Batch | None:
        """Claim jobs; None when there are none, or none could be had. Too many that are unsettled hold it up."""
        while len(self.acknowledger.done) > BACKLOG and not self.signals.stopping:
            self.slot.enter(Phase.SETTLING, self.stall())
            self.acknowledger.flush(1.0)
        claim = next((claim for claim in self.slot.claims if not claim.token), None)
        if claim is None:  # all are held open by rows that somebody else has locked
            self.slot.enter(Phase.SETTLING, self.stall())
            self.acknowledger.flush(1.0)
            self.interruptible_sleep(RECHECK_PAUSE)  # a flush does not wait for them: it has tried, and that is all
            return None
        batch = self.claimer.claim(claim)
        if self.claimer.retry_in:
            self.interruptible_sleep(self.claimer.retry_in)
        return batch

    def wait_for_work(self) -> None:
        """Wait for work: until somebody rings, or for what a sweep may find. Time alone is no reason to ask for any."""
        self.gate.disarm()
        self.slot.enter(Phase.IDLE, self.stall())
        self.node.scheduler_wakeup.wake()
        patience = self.node.settings.stall_timeout / 2
        while not self.signals.stopping and os.getppid() == self.parent:
            self.slot.enter(Phase.IDLE, self.stall())
            wait = self.claimer.cursors.wait()
            rung = self.poll.poll(wait if 0 < wait < patience else patience)
            for fd, _ in rung:
                (self.node.worker_wakeup if fd == self.node.worker_wakeup.fd else self.wakeup).clear()
            if rung or 0 < wait < patience:
                break

    def interruptible_sleep(self, seconds: float) -> None:
        """Wait a moment; a signal ends it."""
        self.slot.floats[Slot.DEADLINE] = self.stall() + seconds
        if readable([self.wakeup.fd], seconds):
            self.wakeup.clear()

    # Work

    def work(self, batch: Batch) -> None:
        """Run the jobs of a batch that nobody takes back; a lease that is out, or a signal, ends it."""
        claim, pending, run = batch.claim, batch.pending, self.runner.run
        lease, words, signals = self.header.floats, self.slot.words, self.signals
        begun = now = monotonic()
        self.slot.floats[Slot.STARTED] = now
        words[Slot.PHASE] = Phase.RUNNING
        self.acknowledger.watch(batch)
        place, row = 0, None
        while pending and not signals.stopping and not self.runner.tainted:
            if clock_gettime(CLOCK_BOOTTIME) >= lease[Header.LEASE_UNTIL]:
                break
            try:
                row = pending.popleft()
            except IndexError:  # the clerk was faster
                break
            if row[7]:
                self.isolate(batch)
                now = monotonic()
            elif row[4] == self.slow_task:
                self.acknowledger.flush(0.1)
                now = monotonic()
            ended = run(claim, place, row, now)
            if ended - now > BRIEF:
                self.restore_signals(row)
            if ended - now > SLOW_TASK:
                self.slow_task = row[4]
            elif row[4] == self.slow_task:
                self.slow_task = ""
            now = ended
            place += 1
        self.acknowledger.batch = None
        self.slot.enter(Phase.SETTLING, self.stall())
        self.acknowledger.release(batch)
        self.acknowledger.wake()
        if row is not None:
            self.restore_signals(row)
        words[Slot.DONE] += place
        self.claimer.batch_size.note(place, now - begun)

    def restore_signals(self, row: tuple[Any, ...]) -> None:
        """Undo what a job has done to this process's signals: the one that tells it to stop may be lost."""
        if self.dispositions.restore(row[0], row[4]) and self.header.draining:
            self.signals.stopping = True

    def isolate(self, batch: Batch) -> None:
        """Run a job alone that once took its worker or node with it: its neighbours go back first."""
        self.acknowledger.release(batch)
        self.acknowledger.flush(1.0)

    # Small things

    clock = staticmethod(lambda: clock_gettime(CLOCK_BOOTTIME))

    def stall(self) -> float:
        """Return the deadline of a step of our own (monotonic)."""
        return monotonic() + self.node.settings.stall_timeout


def main(node: NodeContext, slot: Slot) -> int:
    """Be a worker."""
    return Worker(node, slot).run()
