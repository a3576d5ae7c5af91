"""The scheduler loop: renew the lease, recover dead workers' jobs, poll, wake workers, run maintenance tasks."""

import os
import signal
from time import monotonic
from types import FrameType
from typing import Any

import psycopg

from qworker import migrations, rights
from qworker.errors import SchemaError
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworker.registry import PollResult, Registry
from qworker.schedules import StoredSchedules
from qworkerd import __version__, log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process import exits
from qworkerd.process.boot import receive_signals
from qworkerd.process.reconnect import RECONNECT, ReconnectingConnection
from qworkerd.process.throttle import Throttle
from qworkerd.scheduler import sequences
from qworkerd.scheduler.audit import Audit
from qworkerd.scheduler.cancellation import signal_cancelled
from qworkerd.scheduler.deregistration import deregister
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.notifications import Notifications
from qworkerd.scheduler.orphans import end_workers
from qworkerd.scheduler.periodic import Periodic
from qworkerd.scheduler.poller import Poller
from qworkerd.scheduler.promotion import Promotion
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.rescue import Rescue
from qworkerd.scheduler.retention import Retention
from qworkerd.scheduler.schedules import Schedules
from qworkerd.scheduler.watermarks.tracker import WatermarkTracker
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.wakeup import WakeupPipe, readable

Database = psycopg.Connection[tuple[Any, ...]]

#: Time the process waits for unsent error reports when it ends (seconds).
LAST_REPORTS = 1.0
#: Interval between two renewals (seconds).
RENEW_EVERY = 1.0
#: Intervals of the maintenance tasks for the whole cluster (seconds).
RECONCILE, SWEEP, AUDIT, DISCARD, TRUNCATE = 2.0, 5.0, 60.0, 600.0, 600.0
#: Interval between polls while a job or tick is due but locked by others (seconds).
OVERDUE_POLL = 0.25
#: If the lease is over and the supervisor has not been seen for this long, it does not kill the workers (seconds).
SUPERVISOR_SILENT = 2.0
#: Limits of a statement (seconds): it must not delay the renewal of the lease.
STATEMENT_TIMEOUT, LOCK_TIMEOUT = 5.0, 0.3

#: A sweep that takes longer (seconds) scans the dead entries that an old snapshot keeps. No worker is woken during it,
#: so these sweeps may take only one part in SWEEP_SHARE of the time.
EXPENSIVE_SWEEP, SWEEP_SHARE = 0.05, 1000


class Scheduler:
    """The scheduler, with one connection and one loop; `run` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        settings = node.settings
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.parent = os.getppid()
        self.stopping = False
        self.wakeup = WakeupPipe()
        self.registry, self.recovery = Registry(settings.schema), Recovery(settings.schema)
        self.maintenance, self.stored_schedules = Maintenance(settings.schema), StoredSchedules(settings.schema)
        self.connection = ReconnectingConnection(
            node, f"scheduler {slot.session_tag}", self.interruptible_sleep, lambda: self.stopping or self.orphaned,
            direct=True, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT,
        )  # fmt: skip
        self.lease = Lease(node, self.registry, __version__)
        self.reporter = Reporter(node.app)
        self.dead_workers = DeadWorkers(node, self.recovery, slot, self.reporter)
        self.rescue = Rescue(node, self.recovery, slot, self.reporter)
        self.promotion = Promotion(self.maintenance)
        self.schedules = Schedules(node, self.stored_schedules)
        self.notifications = Notifications(node, self.registry, self.lease)
        self.retention = Retention(settings, self.maintenance)
        self.audit = Audit(node, self.recovery, self.maintenance, slot)
        self.watermarks = WatermarkTracker(node.watermarks)
        self.poller = Poller(node, self.registry, self.lease, self.watermarks, self.promotion, self.dead_workers)
        self.periodic = Periodic(self.extend_deadline)
        self.periodic.add(
            "reconcile", RECONCILE, lambda d: self.wake_if_any(self.dead_workers.reconcile(d, self.poller.result))
        )
        self.periodic.add("discard", DISCARD, self.retention.discard)
        self.periodic.add("sequences", DISCARD, lambda d: sequences.report(d, settings.schema))
        self.periodic.add("keys", DISCARD, self.retention.delete_expired_keys)
        self.periodic.add("unheld keys", DISCARD, self.retention.delete_unheld_keys)
        # With --burst the node ends when no work is left, and so waits for invalid rows.
        self.periodic.add("audit", SWEEP if settings.burst else AUDIT, lambda d: self.wake_if_any(self.audit.run(d)))
        self.periodic.add("schedules", DISCARD, self.stored_schedules.delete_unused)
        self.periodic.add("truncate", TRUNCATE, self.retention.truncate)
        self.generation = 0
        self.renew_due = 0.0
        self.poll_due = 0.0
        self.sweeps = Throttle(SWEEP_SHARE, every=SWEEP, cheap=EXPENSIVE_SWEEP)
        self.empty_polls = 0
        self.log = log.get()

    # Lifecycle

    def run(self) -> int:
        """Boot, then serve: the main function of the process."""
        self.boot()
        return self.serve()

    def serve(self) -> int:
        """Serve until the supervisor reports that all workers have exited, or is gone itself."""
        while not self.stopping and not self.orphaned:
            self.extend_deadline()
            database = self.connection.get()
            if database is None:
                break
            try:
                self.tick(database)
                self.sleep(database)
            except psycopg.Error as error:
                self.log.warning("scheduler.error", error=str(error).strip())
                self.interruptible_sleep(0.5 if self.connection.usable_after(error) else RECONNECT.first)
                continue
            except SchemaError as error:
                self.log.error("schema.incompatible", error=str(error))  # noqa: TRY400 - the traceback is of no use
                self.header.queues_empty = True  # with --burst: no job can run, so do not wait for the queues to empty
                return exits.CONFIG
        return self.close()

    def boot(self) -> None:
        """Install the signal handlers while all signals are blocked, then unblock them."""
        log.bind_process(role="scheduler")
        self.extend_deadline(Phase.CLAIMING)
        receive_signals(self.wakeup.write_fd, {signal.SIGTERM: self.on_term, signal.SIGQUIT: self.on_term})

    def close(self) -> int:
        """Recover what is left and deregister the node. An orphaned scheduler kills the workers first."""
        self.slot.enter(Phase.CLOSING, monotonic() + self.node.settings.stall_timeout)
        if self.orphaned:
            self.log.error("supervisor.lost", hint="its workers are killed and their jobs released")
            # If the supervisor continues after all, it must not start new workers: the lease is about to end.
            self.header.lease_until = 0.0
            end_workers(self.node.table)
        self.stopping = False
        if self.header.node:
            deregister(self.node, self.lease, self.dead_workers, self.interruptible_sleep)
        self.connection.drop()
        self.reporter.close(LAST_REPORTS)
        return exits.OK

    @property
    def orphaned(self) -> bool:
        """Whether timeouts and the lease are no longer enforced: the supervisor is gone or has stopped for too long."""
        if os.getppid() != self.parent:
            return True
        now, lease_until = boottime(), self.header.lease_until
        silent = now - self.header.supervisor_seen_at
        return silent >= self.node.settings.lease_timeout or (silent >= SUPERVISOR_SILENT and 0 < lease_until < now)

    def stop(self) -> None:
        """Stop the loop; called from another thread."""
        self.stopping = True
        self.wakeup.wake()

    def on_term(self, _signum: int, _frame: FrameType | None) -> None:
        """Stop. The supervisor sends SIGTERM after the last worker has been reaped."""
        self.stopping = True

    def extend_deadline(self, phase: Phase = Phase.IDLE) -> None:
        """Show the supervisor that the loop is running. It replaces a scheduler whose deadline passes."""
        self.slot.enter(phase, monotonic() + max(2 * STATEMENT_TIMEOUT, self.node.settings.lease_timeout / 2))

    # One iteration

    def tick(self, database: Database) -> None:
        """Renew the lease, recover dead workers, receive notifications, poll, and run what is due."""
        if self.connection.generation != self.generation:
            if self.header.node == 0:  # once registered, a changed schema does not stop the jobs that run
                migrations.check(database, self.node.settings.schema)
                rights.check(database, self.node.settings.schema)
                if warning := migrations.encoding_warning(database):
                    self.log.warning("database.encoding", problem=warning)
            self.generation = self.connection.generation
            self.rescue.forget()
            self.watermarks.reset()
            self.lease.idle = None
            self.notifications.listen(database)
            self.renew_due = self.poll_due = 0.0
        if monotonic() >= self.renew_due:
            self.renew(database)
        if self.node.table.dead() and self.dead_workers.recover(database):
            self.node.worker_wakeup.wake()
        self.notifications.receive(database)
        self.periodic.attempt(database, "idle", self.notifications.update_idle)
        self.notifications.poll_after_idle()
        if monotonic() >= self.poll_due:
            self.poll(database)
        # Notifications that arrived during a statement were read with its result; the descriptor does not show them.
        self.notifications.receive(database)

    def renew(self, database: Database) -> None:
        """Renew the lease, together with a poll, or by a statement of its own while polls fail."""
        now = monotonic()
        if self.poller.succeeded and self.lease.held:
            self.poll(database, renew=True)
        else:
            self.lease.renew(database, self.watermarks.released_seq)
        # Counted from the same time as the next poll, so that both are due together.
        self.renew_due = now + RENEW_EVERY

    def poll(self, database: Database, *, renew: bool = False) -> None:
        """Find out what there is to do, and do it."""
        began = monotonic()
        sweep = began >= self.sweeps.due
        self.poll_due = began + min(
            RENEW_EVERY / 2 if self.watermarks.has_lingering_writer else RENEW_EVERY, self.node.settings.poll_interval
        )
        result = self.poller.poll(database, renew=renew, sweep=sweep)
        poll_again = self.poller.succeeded and self.watermarks.advance(result)
        if sweep:
            self.sweeps.note(monotonic(), monotonic() - began)
        if sweep or not self.poller.succeeded:
            self.periodic.attempt(
                database, "rescue", lambda d: self.wake_if_any(self.rescue.free_nodes(d, result.dead_nodes))
            )
            if result.expired:
                self.periodic.attempt(database, "expire", self.retention.expire)
        if result.waiting or not self.poller.succeeded:
            self.node.worker_wakeup.wake()
        signal_cancelled(self.node, result.cancels)
        if not self.header.draining:
            self.periodic.attempt(database, "promote", self.promote)
            if result.at >= self.schedules.due_at or not self.poller.succeeded:
                self.periodic.attempt(database, "cron", lambda d: self.wake_if_any(self.schedules.enqueue(d)))
            if self.poller.succeeded:
                self.schedule_next_poll(result)
        if poll_again:
            self.poll_due = 0.0
        self.periodic.attempt(
            database, "watch", lambda d: self.wake_if_any(self.rescue.check_heartbeats(d, result.heartbeats))
        )
        self.periodic.run_due(database)
        if self.node.settings.burst:
            self.periodic.attempt(database, "drain", self.check_empty)

    def schedule_next_poll(self, result: PollResult) -> None:
        """Poll again when the next job or tick is due, if that is sooner."""
        soon = min(RENEW_EVERY if result.due_in is None else result.due_in, self.schedules.due_at - result.at)
        # A job that is due but was not promoted is locked, or another node is taking it.
        self.poll_due = min(self.poll_due, monotonic() + (max(soon, 0.005) if soon > 0 else OVERDUE_POLL))

    def promote(self, database: Database) -> None:
        """Make due jobs available, and wake a worker for them."""
        if self.promotion.promote(database, self.poller.result.due_in):
            self.node.worker_wakeup.wake()
            self.poll_due = 0.0

    def wake_if_any(self, jobs: int) -> None:
        """Wake a worker if jobs have become available."""
        if jobs:
            self.node.worker_wakeup.wake()

    def check_empty(self, database: Database) -> None:
        """With --burst: stop the node after two consecutive polls that find no work."""
        seen = self.poller.result.waiting or self.poller.result.has_running
        empty = not (seen or self.registry.unfinished(database, self.node.settings.queues))
        self.empty_polls = self.empty_polls + 1 if empty else 0
        if self.empty_polls > 1:
            self.header.queues_empty = True
            self.node.worker_wakeup.wake()

    # Waiting

    def sleep(self, database: Database) -> None:
        """Wait until something is due, a notification arrives, or another process wakes the scheduler."""
        wait = min(self.renew_due, self.poll_due, self.notifications.due) - monotonic()
        if database.fileno() in self.wait_readable(
            [database.fileno(), self.node.scheduler_wakeup.fd, self.wakeup.fd], wait
        ):
            self.notifications.receive(database)  # first: a job is waiting for a worker

    def interruptible_sleep(self, seconds: float) -> None:
        """Wait before the next attempt to connect."""
        self.extend_deadline()
        self.wait_readable([self.wakeup.fd], seconds)

    def wait_readable(self, fds: list[int], timeout: float) -> list[int]:
        """Wait until one of the descriptors is readable; return those that are."""
        ready = readable(fds, max(timeout, 0.0))
        for pipe in (self.node.scheduler_wakeup, self.wakeup):
            if pipe.fd in ready:
                pipe.clear()
        return ready


def main(node: NodeContext, slot: Slot) -> int:
    """Run the scheduler in this process; return its exit code."""
    return Scheduler(node, slot).run()
