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
from qworkerd import __version__, exits, log
from qworkerd.bell import WakeupPipe, readable
from qworkerd.header import boottime
from qworkerd.link import RECONNECT_FIRST, ReconnectingConnection
from qworkerd.node import NodeContext
from qworkerd.reports import Reporter
from qworkerd.scheduler import sequences
from qworkerd.scheduler.burials import Burials
from qworkerd.scheduler.cancels import signal_cancelled
from qworkerd.scheduler.cron import Cron
from qworkerd.scheduler.due import Due
from qworkerd.scheduler.duties import Duties
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.lookout import Lookout
from qworkerd.scheduler.orphanage import end_workers
from qworkerd.scheduler.parting import sign_off
from qworkerd.scheduler.rescue import Rescue
from qworkerd.scheduler.retention import Retention
from qworkerd.scheduler.survey import Survey
from qworkerd.scheduler.wake import Wake
from qworkerd.slots import Phase, Slot
from qworkerd.throttle import Throttle

Database = psycopg.Connection[tuple[Any, ...]]

#: How long the end of the process waits for reports (seconds).
LAST_REPORTS = 1.0
#: Between two renewals at most (seconds).
BEAT = 1.0
#: So often the duties of the whole cluster are looked after (seconds).
RECONCILE, SWEEP, DISCARD, TRUNCATE = 2.0, 5.0, 600.0, 600.0
#: Between two looks at a job or tick that is due and cannot be had (seconds).
OVERDUE = 0.25
#: A supervisor that has not looked for so long does not stop the workers of a lease that is out (seconds).
UNATTENDED = 2.0
#: A statement of a duty may take so long (seconds); the lease must not wait for it.
PATIENCE, LOCK_PATIENCE = 5.0, 0.3

#: A sweep that took longer walks over what an old snapshot could see (seconds); nobody is woken meanwhile, and all of
#: those together may take a thousandth of the time.
DEAR, SHARE = 0.05, 1000


class Scheduler:
    """One connection, one loop; `run` returns the exit code."""

    def __init__(self, node: NodeContext, slot: Slot) -> None:
        settings = node.settings
        self.node = node
        self.slot = slot
        self.header = node.table.header
        self.parent = os.getppid()
        self.stopping = False
        self.bell = WakeupPipe()
        self.nodes = Nodes(settings.schema)
        self.link = ReconnectingConnection(
            node, f"scheduler {slot.session_tag}", self.doze, lambda: self.stopping or self.orphaned,
            direct=True, statement_timeout=PATIENCE, lock_timeout=LOCK_PATIENCE,
        )  # fmt: skip
        self.lease = Lease(node, self.nodes, __version__)
        self.reporter = Reporter(node.app)
        self.burials = Burials(node, self.nodes, slot, self.reporter)
        self.rescue = Rescue(node, self.nodes, slot, self.reporter)
        self.due = Due(self.nodes)
        self.cron = Cron(node, self.nodes)
        self.wake = Wake(node, self.nodes, self.lease)
        self.retention = Retention(settings, self.nodes)
        self.survey = Survey(node.watermarks)
        self.lookout = Lookout(node, self.nodes, self.lease, self.survey, self.due, self.burials)
        self.duties = Duties(self.breathe)
        self.duties.add("reconcile", RECONCILE, lambda d: self.freed(self.burials.reconcile(d, self.lookout.sight)))
        self.duties.add("discard", DISCARD, self.retention.discard)
        self.duties.add("sequences", DISCARD, lambda d: sequences.report(d, settings.schema))
        self.duties.add("keys", DISCARD, self.nodes.delete_expired_keys)
        self.duties.add("schedules", DISCARD, self.nodes.delete_unused_schedules)
        self.duties.add("truncate", TRUNCATE, self.retention.truncate)
        self.made = 0
        self.beat_due = 0.0
        self.look_due = 0.0
        self.sweeps = Throttle(SHARE, every=SWEEP, cheap=DEAR)
        self.empty_looks = 0
        self.log = log.get()

    # Life

    def run(self) -> int:
        """Be a process of one's own."""
        self.boot()
        return self.serve()

    def serve(self) -> int:
        """Serve until the supervisor says that all workers are gone, or is gone itself."""
        while not self.stopping and not self.orphaned:
            self.breathe()
            database = self.link.get()
            if database is None:
                break
            try:
                self.round(database)
                self.sleep(database)
            except psycopg.Error as error:
                self.log.warning("scheduler.error", error=str(error).strip())
                self.doze(0.5 if self.link.usable_after(error) else RECONNECT_FIRST)
                continue
            except SchemaError as error:
                self.log.error("scheduler.schema_unfit", error=str(error))  # noqa: TRY400 - where it was raised says nothing
                self.header.queues_empty = True  # nothing can be done for these queues
                return exits.CONFIG
        return self.close()

    def boot(self) -> None:
        """Get ready while all signals are blocked, then open up."""
        log.bind_process(role="scheduler")
        signal.set_wakeup_fd(self.bell.write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGQUIT, self.on_term)
        self.breathe(Phase.CLAIMING)
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
            sign_off(self.node, self.lease, self.burials, self.doze)
        self.link.drop()
        self.reporter.close(LAST_REPORTS)
        return exits.OK

    @property
    def orphaned(self) -> bool:
        """Whether nobody enforces timeouts and the lease: the supervisor is gone, or stands still for too long."""
        if os.getppid() != self.parent:
            return True
        now, lease_until = boottime(), self.header.lease_until
        silent = now - self.header.supervisor_seen_at
        return silent >= self.node.settings.lease or (silent >= UNATTENDED and 0 < lease_until < now)

    def stop(self) -> None:
        """End the loop, from another thread."""
        self.stopping = True
        self.bell.wake()

    def on_term(self, _signum: int, _frame: FrameType | None) -> None:
        """Stop: the supervisor sends it when the last worker is reaped."""
        self.stopping = True

    def breathe(self, phase: Phase = Phase.IDLE) -> None:
        """Show the supervisor that the loop goes round; a scheduler that hangs is replaced, if possible in time."""
        self.slot.enter(phase, monotonic() + max(2 * PATIENCE, self.node.settings.lease / 2))

    # One round

    def round(self, database: Database) -> None:
        """Renew first; then the graves; then look; then the duties, each for itself."""
        if self.link.generation != self.made:
            if self.header.node == 0:  # later a changed schema is no reason to end what runs
                migrations.check(database, self.node.settings.schema)
                rights.check(database, self.node.settings.schema)
                if warning := migrations.encoding_warning(database):
                    self.log.warning("database.encoding", problem=warning)
            self.made = self.link.generation
            self.rescue.forget()
            self.survey.reset()
            self.lease.idle = None
            self.wake.listen(database)
            self.beat_due = self.look_due = 0.0
        if monotonic() >= self.beat_due:
            self.beat(database)
        if self.node.table.dead() and self.burials.bury(database):
            self.node.worker_wakeup.wake()
        self.wake.hear(database)
        self.duties.attempt(database, "idle", self.wake.tell)
        self.wake.look()
        if monotonic() >= self.look_due:
            self.look(database)
        # What came while a statement was under way was read with its answer: no descriptor tells of it any more.
        self.wake.hear(database)

    def beat(self, database: Database) -> None:
        """Renew the lease: in one statement with a look at what there is to do, or alone while that meets trouble."""
        now = monotonic()
        if self.lookout.sees and self.lease.stands:
            self.look(database, renew=True)
        else:
            self.lease.renew(database, self.survey.returned)
        # From the same moment as the next look is: they are due together.
        self.beat_due = now + BEAT

    def look(self, database: Database, *, renew: bool = False) -> None:
        """See what there is to do, and do it."""
        began = monotonic()
        sweep = began >= self.sweeps.due
        self.look_due = began + min(BEAT / 2 if self.survey.lingers else BEAT, self.node.settings.poll_interval)
        sight = self.lookout.look(database, renew=renew, sweep=sweep)
        again = self.lookout.sees and self.survey.take(sight)
        if sweep:
            self.sweeps.note(monotonic(), monotonic() - began)
        if sweep or not self.lookout.sees:
            self.duties.attempt(database, "rescue", lambda d: self.freed(self.rescue.free_all(d, sight.dead_nodes)))
            if sight.expired:
                self.duties.attempt(database, "expire", self.retention.expire)
        if sight.waiting or not self.lookout.sees:
            self.node.worker_wakeup.wake()
        signal_cancelled(self.node, sight.cancels)
        if not self.header.draining:
            self.duties.attempt(database, "promote", self.promote)
            if sight.at >= self.cron.due_at or not self.lookout.sees:
                self.duties.attempt(database, "cron", lambda d: self.freed(self.cron.enqueue(d)))
            if self.lookout.sees:
                self.aim(sight)
        if again:
            self.look_due = 0.0
        self.duties.attempt(database, "watch", lambda d: self.freed(self.rescue.watch(d, sight.heartbeats)))
        self.duties.do(database)
        if self.node.settings.drain:
            self.duties.attempt(database, "drain", self.check_empty)

    def aim(self, sight: PollResult) -> None:
        """Look again when the next job or tick is due, if that is sooner."""
        soon = min(BEAT if sight.due_in is None else sight.due_in, self.cron.due_at - sight.at)
        # What is due and still there is somebody else's: locked, or taken by another node.
        self.look_due = min(self.look_due, monotonic() + (max(soon, 0.005) if soon > 0 else OVERDUE))

    def promote(self, database: Database) -> None:
        """Make due jobs available, and wake somebody for them."""
        if self.due.promote(database, self.lookout.sight.due_in):
            self.node.worker_wakeup.wake()
            self.look_due = 0.0

    def freed(self, jobs: int) -> None:
        """Wake somebody if jobs have become available."""
        if jobs:
            self.node.worker_wakeup.wake()

    def check_empty(self, database: Database) -> None:
        """With --drain: two looks in a row that find no work end the node."""
        seen = self.lookout.sight.waiting or self.lookout.sight.has_running
        empty = not (seen or self.nodes.unfinished(database, self.node.settings.queues))
        self.empty_looks = self.empty_looks + 1 if empty else 0
        if self.empty_looks > 1:
            self.header.queues_empty = True
            self.node.worker_wakeup.wake()

    # Waiting

    def sleep(self, database: Database) -> None:
        """Wait until something is due or somebody calls."""
        wait = min(self.beat_due, self.look_due, self.wake.due) - monotonic()
        if database.fileno() in self.listen([database.fileno(), self.node.scheduler_wakeup.fd, self.bell.fd], wait):
            self.wake.hear(database)  # before anything else: somebody waits

    def doze(self, seconds: float) -> None:
        """Pause between two tries to connect."""
        self.breathe()
        self.listen([self.bell.fd], seconds)

    def listen(self, fds: list[int], timeout: float) -> list[int]:
        """Wait for any of the descriptors; return those that are ready."""
        ready = readable(fds, max(timeout, 0.0))
        for bell in (self.node.scheduler_wakeup, self.bell):
            if bell.fd in ready:
                bell.clear()
        return ready


def main(node: NodeContext, slot: Slot) -> int:
    """Be the scheduler."""
    return Scheduler(node, slot).run()
