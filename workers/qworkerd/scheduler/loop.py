"""The scheduler loop: renew the lease, recover dead workers' jobs, poll, wake workers, run maintenance tasks."""

import signal
from functools import partial
from time import monotonic
from types import FrameType

import psycopg

from qworker.db.statements import Database
from qworker.errors import SchemaError
from qworker.job_logs import JobLogs
from qworker.maintenance import Maintenance
from qworker.nodes import Nodes
from qworker.queues import Queues
from qworker.recovery import Recovery
from qworker.registry import Registry
from qworker.schedules import StoredSchedules
from qworker.stacks import JobStacks
from qworkerd import __version__, log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process import exits
from qworkerd.process.boot import receive_signals
from qworkerd.process.reconnect import RECONNECT, ReconnectingConnection
from qworkerd.scheduler.activity import Activity
from qworkerd.scheduler.burst import BURST_POLL, Burst
from qworkerd.scheduler.cancellation import signal_cancelled
from qworkerd.scheduler.deregistration import deregister
from qworkerd.scheduler.lease import RENEW_INTERVAL, Lease
from qworkerd.scheduler.live_logs import LiveLogs
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.scheduler.notifications import Notifications
from qworkerd.scheduler.operations import OperationSlices
from qworkerd.scheduler.orphans import SupervisorWatch
from qworkerd.scheduler.pauses import Pauses
from qworkerd.scheduler.poller import Poller
from qworkerd.scheduler.promotion import Promotion
from qworkerd.scheduler.reconciliation import Reconciliation
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.rescue import Rescue
from qworkerd.scheduler.retention import Retention
from qworkerd.scheduler.routine import RoutineMaintenance
from qworkerd.scheduler.schedules import Schedules
from qworkerd.scheduler.settlement import Settlement
from qworkerd.scheduler.stack_dumps import StackDumps
from qworkerd.scheduler.statistics import Statistics
from qworkerd.scheduler.watermarks.tracker import WatermarkTracker
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.wakeup import WakeupPipe, wait

#: Time the process waits for unsent error reports when it ends (seconds).
LAST_REPORTS = 1.0
#: Limits of a statement (seconds): it must not delay the renewal of the lease.
STATEMENT_TIMEOUT, LOCK_TIMEOUT = 5.0, 0.3
#: Interval at which claims that no worker of the node has are released (seconds).
RECONCILE_INTERVAL = 2.0
#: By how much the interval of polls is longer in a quiet cluster, so that all statements of a node are one a second.
QUIET_FACTOR = 1.25
#: Time between turns of operations that have more to do (seconds).
OPERATIONS_PAUSE = 0.1


class Scheduler:
    """The scheduler, with one connection and one loop; `serve` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        schema = node.settings.schema
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.log = log.get()
        self.stopping = False
        self.wakeup = WakeupPipe()
        self.supervisor = SupervisorWatch(node)
        self.connection = ReconnectingConnection(
            node, f"scheduler {slot.session_tag}", self.interruptible_sleep, self.should_stop,
            direct=True, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT,
        )  # fmt: skip
        #: The number of the connection that the parts below have last seen.
        self.generation = 0
        self.registry, recovery, maintenance = Registry(schema), Recovery(schema), Maintenance(schema)
        self.reporter = Reporter(node.app)
        self.lease = Lease(node, self.registry, __version__)
        tally = node.tally.writer(0)
        settlement = Settlement(node, recovery, self.reporter, tally)
        self.dead_workers = DeadWorkers(node, recovery, slot, settlement)
        self.reconciliation = Reconciliation(node, recovery, slot, settlement)
        self.rescue = Rescue(node, recovery, slot, self.reporter, tally)
        self.promotion = Promotion(maintenance)
        self.schedules = Schedules(node, StoredSchedules(schema))
        self.notifications = Notifications(node, self.registry, self.lease)
        self.pauses = Pauses(node, Queues(schema), Nodes(schema), self.notifications)
        self.retention = Retention(node.settings, maintenance, tally)
        self.statistics = Statistics(node, node.settings.release or __version__)
        self.stack_dumps = StackDumps(node, JobStacks(schema))
        self.live_logs = LiveLogs(node, JobLogs(schema))
        self.watermarks = WatermarkTracker(node.watermarks)
        self.poller = Poller(node, self.registry, self.lease, self.watermarks, self.promotion, self.reconciliation)
        self.operations = OperationSlices(schema)
        self.burst = Burst(node, self.registry)
        self.activity = Activity(node.tally)
        self.routine = RoutineMaintenance(
            node, slot, self.reporter, statement_timeout=STATEMENT_TIMEOUT,
            nodes=lambda: self.poller.result.heartbeats, wake_if_any=self.wake_if_any,
        )  # fmt: skip
        self.maintenance = MaintenanceTasks(self.extend_deadline, node.counters, lambda: self.activity.is_quiet)
        self.maintenance.add("reconcile", RECONCILE_INTERVAL, self.reconcile)
        for part in (
            self.schedules, self.operations, self.retention, self.stack_dumps, self.live_logs, self.routine,
            self.statistics,
        ):  # fmt: skip
            part.add_to(self.maintenance)

    # Lifecycle

    def boot(self) -> None:
        """Install the signal handlers while all signals are blocked, then unblock them."""
        log.bind_process(role="scheduler")
        self.extend_deadline(Phase.CLAIMING)
        receive_signals(self.wakeup.write_fd, {signal.SIGTERM: self.stop, signal.SIGQUIT: self.stop})

    def serve(self) -> int:
        """Serve until the supervisor reports that all workers have exited, or is gone itself."""
        while not self.should_stop():
            self.extend_deadline()
            if (database := self.connection.get()) is None:
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

    def close(self) -> int:
        """Recover the remaining jobs and deregister the node. An orphaned scheduler kills the workers first."""
        self.slot.enter(Phase.CLOSING, monotonic() + self.node.settings.stall_timeout)
        if self.supervisor.lost:
            self.supervisor.end_workers()
        self.stopping = False
        if self.header.node:
            deregister(self.node, self.lease, self.dead_workers, self.statistics, self.interruptible_sleep)
        self.connection.drop()
        self.reporter.close(LAST_REPORTS)
        return exits.OK

    def should_stop(self) -> bool:
        """Return whether the supervisor has stopped the scheduler, or is lost."""
        return self.stopping or self.supervisor.lost

    def stop(self, _signum: int = 0, _frame: FrameType | None = None) -> None:
        """Stop the loop; called from another thread, or by SIGTERM, which follows when all workers have been reaped."""
        self.stopping = True
        self.wakeup.wake()

    def extend_deadline(self, phase: Phase = Phase.IDLE) -> None:
        """Extend the deadline by which the supervisor expects the next sign of life; it replaces a hung scheduler."""
        self.slot.enter(phase, monotonic() + max(2 * STATEMENT_TIMEOUT, self.node.settings.lease_timeout / 2))

    # One iteration

    def tick(self, database: Database) -> None:
        """Renew the lease, recover dead workers, receive notifications, poll, and run what is due."""
        if self.connection.generation != self.generation:
            self.begin_session(database)
        if self.lease.clock.is_due:
            self.renew(database)
        self.wake_if_any(self.dead_workers.recover(database))
        self.receive(database)
        if self.notifications.queues_changed or self.poller.clock.is_due:
            self.poll(database)
        if monotonic() >= self.live_logs.due:
            self.maintenance.attempt(database, "live logs", self.live_logs.write)
        self.maintenance.run_due(database)
        # Notifications that arrived during a statement were read with its result; the descriptor does not show them.
        self.notifications.receive(database)

    def begin_session(self, database: Database) -> None:
        """Discard what was read from an earlier connection, which may have led to another server."""
        self.lease.check_database(database)
        if self.header.node == 0:
            self.pauses.read(database)
        else:  # an error must not cost a registered node its lease
            self.maintenance.attempt(database, "pauses", self.pauses.read)
        self.generation = self.connection.generation
        self.rescue.reset()
        self.watermarks.reset()
        self.lease.idle = None
        self.notifications.begin_session(database)
        self.lease.clock.hasten()
        self.poller.clock.hasten()

    def renew(self, database: Database) -> None:
        """Renew the lease, together with a poll, or by a separate statement while polls fail."""
        began = monotonic()
        if self.poller.succeeded and self.lease.held:
            self.poll(database, renew=True)
        else:
            self.lease.renew(database, self.watermarks.released_seq)
        # Counted from the same time as the next poll, so that both are due together.
        self.lease.clock.restart(began)

    def receive(self, database: Database) -> None:
        """Wake a worker if a notification has arrived; if the node has become idle, request notifications."""
        self.maintenance.attempt(database, "listen", self.notifications.listen)
        self.notifications.receive(database)
        self.maintenance.attempt(database, "idle", self.notifications.update_idle)
        self.notifications.poll_after_idle()

    def poll(self, database: Database, *, renew: bool = False) -> None:
        """Poll, and process the result."""
        self.notifications.queues_changed = False
        result = self.poller.poll(database, renew=renew)
        self.activity.observe(result)
        self.set_pace()
        attempt = partial(self.maintenance.attempt, database)
        if result.dead_nodes:
            attempt("rescue", lambda d: self.wake_if_any(self.rescue.rescue_nodes(d, result.dead_nodes)))
        if result.expired:
            attempt("expire", self.retention.expire)
        attempt("pauses", lambda d: self.pauses.apply(d, result))
        self.wake_if_any(result.waiting(self.node.paused.lanes) or not self.poller.succeeded)
        signal_cancelled(self.node, result.cancels)
        if result.stacks or self.stack_dumps.pending:
            attempt("stacks", lambda d: self.stack_dumps.answer(d, result.stacks))
        self.live_logs.follow(result.followed)
        if result.operations and attempt("operations", self.operations.run):
            self.poller.clock.hasten(OPERATIONS_PAUSE)
        if not self.header.draining:
            attempt("promote", self.promote)
            if result.at >= self.schedules.due_at or not self.poller.succeeded:
                attempt("cron", lambda d: self.wake_if_any(self.schedules.enqueue(d)))
            if self.poller.succeeded:
                self.poller.schedule_next(self.schedules.due_at)
        attempt("watch", lambda d: self.wake_if_any(self.rescue.check_heartbeats(d, result.heartbeats)))
        if self.node.settings.burst:
            attempt("burst", lambda d: self.burst.check(d, result))
            if self.header.queues_empty:
                self.maintenance.catch_up(database)
            self.poller.clock.hasten(BURST_POLL)

    def set_pace(self) -> None:
        """Poll less often while nothing happens and notifications tell the node if something does."""
        resting = self.activity.is_quiet and self.notifications.listening and self.node.settings.poll_interval >= 1
        self.lease.clock.interval = RENEW_INTERVAL * (QUIET_FACTOR if resting else 1)
        self.poller.clock.interval = (
            self.lease.clock.interval if resting else min(RENEW_INTERVAL, self.node.settings.poll_interval)
        )

    def promote(self, database: Database) -> None:
        """Make due jobs available, and wake a worker for them."""
        if self.promotion.promote(database, self.poller.result.due_in):
            self.node.worker_wakeup.wake()
            self.poller.clock.hasten()

    def reconcile(self, database: Database) -> None:
        """Release jobs that no worker of the node has, and wake a worker for them."""
        self.wake_if_any(self.reconciliation.release(database, self.poller.result))

    def wake_if_any(self, jobs: int) -> None:
        """Wake a worker if jobs have become available."""
        if jobs:
            self.node.worker_wakeup.wake()

    # Waiting

    def sleep(self, database: Database) -> None:
        """Wait until something is due, a notification arrives, or another process wakes the scheduler."""
        due = min(self.lease.clock.due, self.poller.clock.due, self.notifications.due, self.live_logs.due)
        if database.fileno() in wait([self.node.scheduler_wakeup, self.wakeup], due - monotonic(), database.fileno()):
            self.notifications.receive(database)  # first: a job is waiting for a worker

    def interruptible_sleep(self, seconds: float) -> None:
        """Wait before the next attempt to connect."""
        self.extend_deadline()
        wait([self.wakeup], seconds)


def main(node: NodeContext, slot: Slot) -> int:
    """Run the scheduler in this process; return its exit code."""
    scheduler = Scheduler(node, slot)
    scheduler.boot()
    return scheduler.serve()
