"""The scheduler: renews the lease, buries the dead, wakes workers, and does what any node may do for all."""

import os
import signal
from time import monotonic
from types import FrameType
from typing import Any

import psycopg

from qworker import migrations, rights
from qworker.errors import SchemaError
from qworker.nodes import Nodes, PollResult
from qworkerd import __version__, log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process import exits
from qworkerd.process.reconnect import RECONNECT_FIRST, ReconnectingConnection
from qworkerd.process.throttle import Throttle
from qworkerd.scheduler import sequences
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
from qworkerd.scheduler.watermarks import WatermarkTracker
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.wakeup import WakeupPipe, readable

Database = psycopg.Connection[tuple[Any, ...]]

#: How long the end of the process waits for reports (seconds).
LAST_REPORTS = 1.0
#: Between two renewals at most (seconds).
RENEW_EVERY = 1.0
#: So often the duties of the whole cluster are looked after (seconds).
RECONCILE, SWEEP, DISCARD, TRUNCATE = 2.0, 5.0, 600.0, 600.0
#: Between two looks at a job or tick that is due and cannot be had (seconds).
OVERDUE_POLL = 0.25
#: A supervisor that has not looked for so long does not stop the workers of a lease that is out (seconds).
SUPERVISOR_SILENT = 2.0
#: A statement of a duty may take so long (seconds); the lease must not wait for it.
STATEMENT_TIMEOUT, LOCK_TIMEOUT = 5.0, 0.3

#: A sweep that took longer walks over what an old snapshot could see (seconds); nobody is woken meanwhile, and all of
#: those together may take a thousandth of the time.
EXPENSIVE_SWEEP, SWEEP_SHARE = 0.05, 1000


class Scheduler:
    """One connection, one loop; `run` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        settings = node.settings
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.parent = os.getppid()
        self.stopping = False
        self.wakeup = WakeupPipe()
        self.nodes = Nodes(settings.schema)
        self.connection = ReconnectingConnection(
            node, f"scheduler {slot.session_tag}", self.interruptible_sleep, lambda: self.stopping or self.orphaned,
            direct=True, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT,
        )  # fmt: skip
        self.lease = Lease(node, self.nodes, __version__)
        self.reporter = Reporter(node.app)
        self.dead_workers = DeadWorkers(node, self.nodes, slot, self.reporter)
        self.rescue = Rescue(node, self.nodes, slot, self.reporter)
        self.promotion = Promotion(self.nodes)
        self.schedules = Schedules(node, self.nodes)
        self.notifications = Notifications(node, self.nodes, self.lease)
        self.retention = Retention(settings, self.nodes)
        self.watermarks = WatermarkTracker(node.watermarks)
        self.poller = Poller(node, self.nodes, self.lease, self.watermarks, self.promotion, self.dead_workers)
        self.periodic = Periodic(self.extend_deadline)
        self.periodic.add(
            "reconcile", RECONCILE, lambda d: self.wake_if_any(self.dead_workers.reconcile(d, self.poller.result))
        )
        self.periodic.add("discard", DISCARD, self.retention.discard)
        self.periodic.add("sequences", DISCARD, lambda d: sequences.report(d, settings.schema))
        self.periodic.add("keys", DISCARD, self.nodes.delete_expired_keys)
        self.periodic.add("schedules", DISCARD, self.nodes.delete_unused_schedules)
        self.periodic.add("truncate", TRUNCATE, self.retention.truncate)
        self.generation = 0
        self.renew_due = 0.0
        self.poll_due = 0.0
        self.sweeps = Throttle(SWEEP_SHARE, every=SWEEP, cheap=EXPENSIVE_SWEEP)
        self.empty_polls = 0
        self.log = log.get()

    # Life

    def run(self) -> int:
        """Be a process of one's own."""
        self.boot()
        return self.serve()

    def serve(self) -> int:
        """Serve until the supervisor says that all workers are gone, or is gone itself."""
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
                self.interruptible_sleep(0.5 if self.connection.usable_after(error) else RECONNECT_FIRST)
                continue
            except SchemaError as error:
                self.log.error("schema.incompatible", error=str(error))  # noqa: TRY400 - where it was raised says nothing
                self.header.queues_empty = True  # nothing can be done for these queues
                return exits.CONFIG
        return self.close()

    def boot(self) -> None:
        """Get ready while all signals are blocked, then open up."""
        log.bind_process(role="scheduler")
        signal.set_wakeup_fd(self.wakeup.write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGQUIT, self.on_term)
        self.extend_deadline(Phase.CLAIMING)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def close(self) -> int:
        """Settle what is left and strike the node off; an orphan first ends the workers."""
        self.slot.enter(Phase.CLOSING, monotonic() + self.node.settings.stall_timeout)
        if self.orphaned:
            self.log.error("supervisor.lost", hint="its workers are ended, their jobs given back")
            # Should the supervisor go on after all, it must not replace them: what they take would soon be others'.
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
        """Whether nobody enforces timeouts and the lease: the supervisor is gone, or stands still for too long."""
        if os.getppid() != self.parent:
            return True
        now, lease_until = boottime(), self.header.lease_until
        silent = now - self.header.supervisor_seen_at
        return silent >= self.node.settings.lease_timeout or (silent >= SUPERVISOR_SILENT and 0 < lease_until < now)

    def stop(self) -> None:
        """End the loop, from another thread."""
        self.stopping = True
        self.wakeup.wake()

    def on_term(self, _signum: int, _frame: FrameType | None) -> None:
        """Stop: the supervisor sends it when the last worker is reaped."""
        self.stopping = True

    def extend_deadline(self, phase: Phase = Phase.IDLE) -> None:
        """Show the supervisor that the loop goes round; a scheduler that hangs is replaced, if possible in time."""
        self.slot.enter(phase, monotonic() + max(2 * STATEMENT_TIMEOUT, self.node.settings.lease_timeout / 2))

    # One round

    def tick(self, database: Database) -> None:
        """Renew first; then the graves; then look; then the duties, each for itself."""
        if self.connection.generation != self.generation:
            if self.header.node == 0:  # later a changed schema is no reason to end what runs
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
        # What came while a statement was under way was read with its answer: no descriptor tells of it any more.
        self.notifications.receive(database)

    def renew(self, database: Database) -> None:
        """Renew the lease: in one statement with a look at what there is to do, or alone while that meets trouble."""
        now = monotonic()
        if self.poller.succeeded and self.lease.stands:
            self.poll(database, renew=True)
        else:
            self.lease.renew(database, self.watermarks.released_seq)
        # From the same moment as the next look is: they are due together.
        self.renew_due = now + RENEW_EVERY

    def poll(self, database: Database, *, renew: bool = False) -> None:
        """See what there is to do, and do it."""
        began = monotonic()
        sweep = began >= self.sweeps.due
        self.poll_due = began + min(
            RENEW_EVERY / 2 if self.watermarks.has_lingering_writer else RENEW_EVERY, self.node.settings.poll_interval
        )
        sight = self.poller.poll(database, renew=renew, sweep=sweep)
        again = self.poller.succeeded and self.watermarks.advance(sight)
        if sweep:
            self.sweeps.note(monotonic(), monotonic() - began)
        if sweep or not self.poller.succeeded:
            self.periodic.attempt(
                database, "rescue", lambda d: self.wake_if_any(self.rescue.free_all(d, sight.dead_nodes))
            )
            if sight.expired:
                self.periodic.attempt(database, "expire", self.retention.expire)
        if sight.waiting or not self.poller.succeeded:
            self.node.worker_wakeup.wake()
        signal_cancelled(self.node, sight.cancels)
        if not self.header.draining:
            self.periodic.attempt(database, "promote", self.promote)
            if sight.at >= self.schedules.due_at or not self.poller.succeeded:
                self.periodic.attempt(database, "cron", lambda d: self.wake_if_any(self.schedules.enqueue(d)))
            if self.poller.succeeded:
                self.schedule_next_poll(sight)
        if again:
            self.poll_due = 0.0
        self.periodic.attempt(database, "watch", lambda d: self.wake_if_any(self.rescue.watch(d, sight.heartbeats)))
        self.periodic.run_due(database)
        if self.node.settings.burst:
            self.periodic.attempt(database, "drain", self.check_empty)

    def schedule_next_poll(self, sight: PollResult) -> None:
        """Look again when the next job or tick is due, if that is sooner."""
        soon = min(RENEW_EVERY if sight.due_in is None else sight.due_in, self.schedules.due_at - sight.at)
        # What is due and still there is somebody else's: locked, or taken by another node.
        self.poll_due = min(self.poll_due, monotonic() + (max(soon, 0.005) if soon > 0 else OVERDUE_POLL))

    def promote(self, database: Database) -> None:
        """Make due jobs available, and wake somebody for them."""
        if self.promotion.promote(database, self.poller.result.due_in):
            self.node.worker_wakeup.wake()
            self.poll_due = 0.0

    def wake_if_any(self, jobs: int) -> None:
        """Wake somebody if jobs have become available."""
        if jobs:
            self.node.worker_wakeup.wake()

    def check_empty(self, database: Database) -> None:
        """With --burst: two looks in a row that find no work end the node."""
        seen = self.poller.result.waiting or self.poller.result.has_running
        empty = not (seen or self.nodes.unfinished(database, self.node.settings.queues))
        self.empty_polls = self.empty_polls + 1 if empty else 0
        if self.empty_polls > 1:
            self.header.queues_empty = True
            self.node.worker_wakeup.wake()

    # Waiting

    def sleep(self, database: Database) -> None:
        """Wait until something is due or somebody calls."""
        wait = min(self.renew_due, self.poll_due, self.notifications.due) - monotonic()
        if database.fileno() in self.wait_for_any(
            [database.fileno(), self.node.scheduler_wakeup.fd, self.wakeup.fd], wait
        ):
            self.notifications.receive(database)  # before anything else: somebody waits

    def interruptible_sleep(self, seconds: float) -> None:
        """Pause between two tries to connect."""
        self.extend_deadline()
        self.wait_for_any([self.wakeup.fd], seconds)

    def wait_for_any(self, fds: list[int], timeout: float) -> list[int]:
        """Wait for any of the descriptors; return those that are ready."""
        ready = readable(fds, max(timeout, 0.0))
        for bell in (self.node.scheduler_wakeup, self.wakeup):
            if bell.fd in ready:
                bell.clear()
        return ready


def main(node: NodeContext, slot: Slot) -> int:
    """Be the scheduler."""
    return Scheduler(node, slot).run()
