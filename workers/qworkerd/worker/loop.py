"""The worker loop: claim jobs, run them, submit their outcomes."""

import os
import select
import signal
from contextlib import suppress
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

from qworker.claims import ClaimedJob
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process import exits
from qworkerd.process.descriptors import fill_standard
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.wakeup import WakeupPipe, wait
from qworkerd.worker.acknowledger import Acknowledger
from qworkerd.worker.batch import Batch
from qworkerd.worker.claimer import Claimer
from qworkerd.worker.dispositions import MIN_CHECKED, Dispositions
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.process_hooks import ProcessHooks
from qworkerd.worker.process_state import ProcessState
from qworkerd.worker.psycopg_patch import register_interrupts
from qworkerd.worker.recycling import RecycleLimits
from qworkerd.worker.runner import Runner
from qworkerd.worker.signal_handlers import SignalHandlers

#: Number of unsettled jobs above which the main thread waits for the acknowledger.
MAX_BACKLOG = 512
#: If the last run of a task took longer, finished jobs are settled before its next run (seconds).
SLOW_TASK = 0.05
#: Interval between checks of a lost lease, or of claims that all remain open (seconds).
RECHECK_INTERVAL = 0.05
#: Time allowed for settling the last jobs when the process ends (seconds).
FINAL_FLUSH_TIMEOUT = 5.0


class Worker:
    """Runs handlers in the main thread of a worker process; `run` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        settings = node.settings
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.parent = os.getppid()
        self.wakeup = WakeupPipe()
        name = f"worker {slot.child} {slot.session_tag}"
        self.connection = ReconnectingConnection(node, name, self.interruptible_sleep, lambda: self.signals.stopping)
        tally = node.tally.writer(slot.child)
        self.claimer = Claimer(node, slot, self.connection, tally)
        reporter = Reporter(node.app)
        self.acknowledger = Acknowledger(node, slot, name, tally, reporter.ended if node.app.end_hooks else None)
        self.gate = InterruptGate()
        self.dispositions = Dispositions(self.gate, self.wakeup.write_fd)
        self.state = ProcessState(node.environment, self.dispositions)
        self.hooks = ProcessHooks(node.app)
        self.runner = Runner(node, slot, self.gate, self.acknowledger, reporter)
        self.signals = SignalHandlers(self.header, slot, self.gate, self.runner, settings.kill_grace)
        self.slow_task = ""  # the task whose last run was slow
        self.limits = RecycleLimits(settings, slot)
        self.poll = select.epoll()
        self.log = log.get()

    # Boot and end

    def boot(self) -> bool:
        """Install handlers and start the acknowledger while all signals are blocked, then unblock them.

        Returns False if a start hook of the application has raised.
        """
        log.bind_process(role="worker", worker=self.slot.child)
        os.environ["PGAPPNAME"] = f"qworker job {self.slot.child} {self.slot.session_tag}"
        self.node.app.pool.dsn = self.pooled_dsn
        if not register_interrupts():
            self.log.warning("psycopg.unsupported", hint="an interrupted query continues until its process ends")
        self.poll.register(self.node.worker_wakeup.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self.poll.register(self.wakeup.fd, select.EPOLLIN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.acknowledger.start()
        self.dispositions.install({
            signal.SIGTERM: self.signals.on_term, signal.SIGQUIT: self.signals.on_quit,
            signal.SIGUSR1: self.signals.on_cancel, signal.SIGALRM: self.gate.fire,
        })  # fmt: skip
        if not self.hooks.start():
            return False
        if self.node.app.start_hooks:
            self.dispositions.restore(0, "on_worker_start")
        self.state.record()
        self.connection.get()  # a worker is ready once it has connected to the database
        self.slot.enter(Phase.IDLE, self.stall_deadline())
        return True

    def run(self) -> int:
        """Claim and run jobs until the worker is stopped or recycled; return the exit code."""
        if not self.boot():
            self.acknowledger.stop(FINAL_FLUSH_TIMEOUT)
            return exits.SOFTWARE
        code = exits.OK
        while not self.signals.stopping:
            if os.getppid() != self.parent or self.header.queues_empty or self.header.draining:
                break
            if self.header.node == 0 or self.clock() >= self.header.lease_until:
                self.slot.enter(Phase.IDLE, self.stall_deadline())
                self.interruptible_sleep(RECHECK_INTERVAL)
                continue
            batch = self.claim()
            if batch is not None:
                self.work(batch)
                if self.limits.reached() or self.runner.tainted:  # an interrupt leaves an unknown state
                    code = exits.RECYCLE
                    self.flush()
                    break
            elif self.node.budget.exhausted:
                self.node.worker_wakeup.wake()  # the next idle worker can stop, too
                self.flush()
                break
            elif self.claimer.exhausted and not self.signals.stopping:
                self.wait_for_work()
        return self.close(code)

    def close(self, code: int) -> int:
        """Settle finished jobs and stop. Outcomes that the database does not accept now stay in the slot."""
        self.slot.enter(Phase.CLOSING, monotonic() + FINAL_FLUSH_TIMEOUT + self.node.settings.stall_timeout)
        self.gate.disarm()
        self.connection.drop()
        if not self.acknowledger.stop(FINAL_FLUSH_TIMEOUT):
            self.log.warning("worker.unacknowledged", hint="the scheduler settles the remaining jobs")
        self.hooks.stop()
        with suppress(Exception):  # an error of the application's pool must not keep the worker from stopping
            self.claimer.close()
            self.runner.close()
            self.node.app.close()
        return code

    def flush(self) -> None:
        """Wait until all outcomes are stored in the database, because a process that exits loses reports of failures.

        If this takes long, the database is unavailable, and another worker could not claim jobs either.
        """
        while not self.signals.stopping and not self.acknowledger.flush(1.0):
            self.slot.enter(Phase.SETTLING, self.stall_deadline())

    # Claiming

    def claim(self) -> Batch | None:
        """Claim jobs; return None if there are none or the claim failed. Waits while too many jobs are unsettled."""
        while self.acknowledger.backlog > MAX_BACKLOG and not self.signals.stopping:
            self.slot.enter(Phase.SETTLING, self.stall_deadline())
            self.acknowledger.flush(1.0)
        claim = next((claim for claim in self.slot.claims if not claim.token), None)
        if claim is None:  # all claims are open, because other sessions have locked some of their rows
            self.slot.enter(Phase.SETTLING, self.stall_deadline())
            self.acknowledger.flush(1.0)
            self.interruptible_sleep(RECHECK_INTERVAL)  # flush() does not wait for locked rows
            return None
        batch = self.claimer.claim(claim)
        if self.claimer.retry_in:
            self.interruptible_sleep(self.claimer.retry_in)
        return batch

    def wait_for_work(self) -> None:
        """Wait until another process wakes this one, or until the next sweep is allowed, which may find jobs."""
        self.gate.disarm()
        self.slot.enter(Phase.IDLE, self.stall_deadline())
        self.node.scheduler_wakeup.wake()
        interval = self.node.settings.stall_timeout / 2
        while not self.signals.stopping and os.getppid() == self.parent:
            self.slot.enter(Phase.IDLE, self.stall_deadline())
            sweep_in = self.claimer.cursors.next_sweep_in()
            woken = self.poll.poll(sweep_in if 0 < sweep_in < interval else interval)
            for fd, _ in woken:
                (self.node.worker_wakeup if fd == self.node.worker_wakeup.fd else self.wakeup).clear()
            if woken or 0 < sweep_in < interval:
                break

    def interruptible_sleep(self, seconds: float) -> None:
        """Sleep; a signal ends it."""
        self.slot.floats[Slot.DEADLINE] = self.stall_deadline() + seconds
        wait([self.wakeup], seconds)

    # Work

    def work(self, batch: Batch) -> None:
        """Run the jobs of a batch until the lease ends, a signal arrives, or the acknowledger has released the rest."""
        claim, pending, run = batch.claim, batch.pending, self.runner.run
        lease, words, signals = self.header.floats, self.slot.words, self.signals
        started = now = monotonic()
        self.slot.floats[Slot.STARTED] = now
        words[Slot.PHASE] = Phase.RUNNING
        self.acknowledger.watch(batch)
        index, row, slow_task, unchecked = 0, None, self.slow_task, False
        while pending and not signals.stopping and not self.runner.tainted:
            if clock_gettime(CLOCK_BOOTTIME) >= lease[Header.LEASE_UNTIL]:
                break
            try:
                row = pending.popleft()
            except IndexError:  # the acknowledger has released it
                break
            if row.crash_count:
                self.isolate(batch)
                now = monotonic()
            elif slow_task and row.task == slow_task:
                self.acknowledger.flush(0.1)
                now = monotonic()
            ended = run(claim, index, row, now)
            unchecked = ended - now <= MIN_CHECKED
            if not unchecked:
                self.restore_state(row)
                if ended - now > SLOW_TASK:
                    slow_task = row.task
            if slow_task and ended - now <= SLOW_TASK and row.task == slow_task:
                slow_task = ""
            now = ended
            index += 1
        self.acknowledger.batch, self.slow_task = None, slow_task
        self.slot.enter(Phase.SETTLING, self.stall_deadline())
        self.acknowledger.release(batch)
        self.acknowledger.wake()
        if row is not None and unchecked:
            self.restore_state(row)
        words[Slot.DONE] += index
        self.claimer.batch_size.record(index, now - started)

    def restore_state(self, row: ClaimedJob) -> None:
        """Undo changes that a job has made to its process, one of which may have been to ignore a signal to stop."""
        if self.state.restore(row) and self.header.draining:
            self.signals.stopping = True

    def isolate(self, batch: Batch) -> None:
        """Release the other jobs of the batch before running a job whose worker or node has died before."""
        self.acknowledger.release(batch)
        self.acknowledger.flush(1.0)

    # Helpers

    def pooled_dsn(self) -> str:
        """Return the DSN for connections of the application's pool, which handlers use to enqueue jobs."""
        fill_standard()
        return self.node.dsn

    clock = staticmethod(lambda: clock_gettime(CLOCK_BOOTTIME))

    def stall_deadline(self) -> float:
        """Return the deadline of a step of the worker itself (monotonic)."""
        return monotonic() + self.node.settings.stall_timeout


def main(node: NodeContext, slot: Slot) -> int:
    """Run a worker in this process; return its exit code."""
    return Worker(node, slot).run()
