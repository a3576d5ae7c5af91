"""The supervisor: one thread, without database or signal handlers, that forks, monitors and replaces children."""

from collections.abc import Callable, Mapping
from signal import Signals
from time import monotonic

from qworkerd import log
from qworkerd.process import exits, signals
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header, boottime
from qworkerd.shared.slots import Phase, Role, Slot, SlotState
from qworkerd.supervisor import child
from qworkerd.supervisor.deadlines import DeadlineEnforcer
from qworkerd.supervisor.handle import ChildHandle
from qworkerd.supervisor.reaper import CauseFinder, ChildExit, expected_exit, keep_or_free_slot, reap
from qworkerd.supervisor.shutdown import Shutdown, State
from qworkerd.supervisor.slow import SlowJobs
from qworkerd.supervisor.systemd import Notifier

#: The longest sleep of the loop (seconds). A deadline that is set during the sleep is noticed after it.
TICK = 0.5
#: The longest sleep until the first worker is ready (seconds), because a service manager may wait for it.
BOOT_TICK = 0.05
#: The longest delay before a scheduler that dies again and again is replaced, as a part of the lease.
MAX_SCHEDULER_DELAY = 1 / 6
#: Maximum number that is accepted from a dead worker: the cause of its death may have damaged its slot.
MAX_STALE_WRITES = 1_000_000


class Supervisor:
    """Keeps one scheduler and N workers alive until the node stops; `run` returns the exit code."""

    def __init__(self, node: NodeContext, mains: Mapping[Role, Callable[[Slot], int]], notifier: Notifier) -> None:
        self.node = node
        self.settings = node.settings
        self.table = node.table
        self.header = node.table.header
        self.mains = mains
        self.notifier = notifier
        self.log = log.get()
        # The lease, and slots for new workers, must outlast the delay.
        self.scheduler = ChildHandle(Role.SCHEDULER, 0, self.settings.lease_timeout * MAX_SCHEDULER_DELAY)
        self.workers = [ChildHandle(Role.WORKER, number) for number in range(1, node.settings.processes + 1)]
        self.exporters = [ChildHandle(Role.EXPORTER, 0)] if Role.EXPORTER in mains else []
        self.children = [self.scheduler, *self.exporters, *self.workers]
        self.tally = node.tally.writer(node.tally.seats - 1)
        self.causes = CauseFinder()
        self.deadlines = DeadlineEnforcer(node)
        self.slow = SlowJobs(node)
        self.shutdown = Shutdown(node, self.workers, [self.scheduler, *self.exporters], notifier)
        self.announced = False
        self.exit_code = exits.OK
        self.watched: frozenset[Signals] = frozenset()

    def run(self) -> int:
        """Supervise the children until the node has stopped."""
        self.watched = signals.block()
        self.log.info("supervisor.started", processes=self.settings.processes, queues=list(self.settings.queues))
        while self.shutdown.state is not State.STOPPED:
            self.header.supervisor_seen_at = boottime()
            self.respawn()
            self.shutdown.handle_signal(signals.wait_for_signal(self.watched, self.sleep()))
            for exited in reap():
                self.on_child_exit(exited)
            self.enforce_lease()
            self.deadlines.enforce(self.children)
            self.slow.log_new()
            self.finish()
            self.shutdown.advance()
            self.report()
        self.log.info("supervisor.stopped", exit_code=self.exit_code)
        return self.exit_code

    def sleep(self) -> float:
        """Return how long the loop may sleep until something is due (seconds)."""
        now = monotonic()
        due = [now + (TICK if self.announced else BOOT_TICK), self.shutdown.until]
        for handle in self.children:
            if handle.slot is not None:
                due.append(self.deadlines.due(handle, handle.slot))
            elif self.wanted(handle):
                due.append(handle.due)
        if (lease := self.header.lease_until - boottime()) > 0:
            due.append(now + lease)
        return max(min(due) - now, 0.001)

    # Children

    def wanted(self, handle: ChildHandle) -> bool:
        """Return whether to keep this child running: a worker while it may claim jobs, the others to the end."""
        if handle.role is not Role.WORKER:
            return self.shutdown.state is not State.CLOSING
        return self.shutdown.state is State.RUNNING and not self.node.budget.exhausted and self.leased

    @property
    def leased(self) -> bool:
        """Whether the node holds its lease. Workers may boot before the node is registered."""
        return self.header.node == 0 or boottime() < self.header.lease_until

    def respawn(self) -> None:
        """Fork the children that are missing and due, the scheduler first."""
        for handle in self.children:
            if handle.pid == 0 and self.wanted(handle) and monotonic() >= handle.due:
                self.spawn(handle)

    def spawn(self, handle: ChildHandle) -> None:
        """Fork a child into a free slot. Without one, wait until the scheduler has settled a dead slot."""
        # If the workers took the last slot while no scheduler runs, none could settle the dead ones any more.
        reserved = int(handle is not self.scheduler and self.scheduler.pid == 0)
        now, slot = monotonic(), self.table.free_slot(reserved=reserved)
        if slot is None:
            handle.due = now + TICK
            return
        slot.assign(handle.role, handle.number, now + self.settings.boot_timeout, now)
        try:
            pid = child.fork(handle.role, slot, self.mains[handle.role])
        except OSError as error:  # no process or no memory is available; the live children must be kept
            slot.free()
            handle.due = now + TICK
            self.log.warning("child.fork_failed", child=handle.name, error=str(error), retry_in=TICK)
            return
        slot.words[Slot.PID] = pid
        handle.started(pid, slot, now)
        self.log.debug("child.spawned", child=handle.name, child_pid=pid)

    def on_child_exit(self, exited: ChildExit) -> None:
        """Log why a child exited, leave its claims to the scheduler, and decide when to replace it."""
        handle = next((s for s in self.children if s.pid == exited.pid), None)
        if handle is None or handle.slot is None:
            return  # an orphan that the supervisor has inherited as process 1
        slot, now = handle.slot, monotonic()
        running = slot.current()
        cancelled_another = slot.words[Slot.CANCEL] not in (0, running.id if running else 0)
        cause = self.causes.cause_of(exited, handle.kill_reason, handle.sent, cancelled_another=cancelled_another)
        expected = expected_exit(exited, running)
        jobs = [entry for claim in slot.open_claims() for entry in claim.entries()]
        self.node.budget.restore(sum(entry.status is Status.UNSTARTED for entry in jobs))
        # A job may be the cause, possibly one that has ended: the jobs that wait must not be delayed.
        worked = any(entry.status is not Status.UNSTARTED for entry in jobs)
        self.header.words[Header.STALE] += min(max(slot.words[Slot.STALE], 0), MAX_STALE_WRITES)
        facts = {
            "child": handle.name, "child_pid": exited.pid, "cause": cause, "uptime": round(now - handle.since, 3),
            "jobs_done": slot.done, "maxrss_mib": exited.maxrss, "cpu": exited.cpu,
        }  # fmt: skip
        if running is not None:
            facts |= {"job": running.id, "task": self.node.task_name(running.task), "attempt": running.attempt}
        if stacks := slot.stacks.read():
            facts["stacks"] = stacks
        if exited.code == exits.CONFIG and not self.announced:
            self.exit_code = exits.CONFIG
            self.shutdown.drain("configuration")
        if keep_or_free_slot(slot, cause, exited):
            self.node.scheduler_wakeup.wake()
        self.tally.died(cause, exited.cpu, expected=expected)
        delay = handle.exited(now, blameless=expected or worked or bool(handle.kill_reason))
        if not expected and handle.role is Role.WORKER:
            self.header.record_death(handle.number, exited.pid, cause, now)
        report = self.log.debug if expected else self.log.warning
        report("child.ended" if expected else "child.died", **facts, respawn_in=round(delay, 3))

    def enforce_lease(self) -> None:
        """Kill the workers once other nodes may release their jobs: no handler may run on two nodes at once."""
        if self.leased or self.shutdown.state is State.CLOSING:
            return
        live = [handle for handle in self.workers if handle.pid]
        for handle in (handle for handle in live if handle.kill_reason is not Cause.LEASE):
            self.log.error(
                "worker.lease_lost",
                child=handle.name,
                child_pid=handle.pid,
                hint="other nodes may release and run its jobs",
            )
            handle.kill(Cause.LEASE, monotonic())
        if self.header.declared_dead and not live:
            self.header.node = 0  # other nodes own the jobs of the dead slots; the scheduler registers again
            self.header.declared_dead = False
            self.node.scheduler_wakeup.wake()

    # The node

    def finish(self) -> None:
        """Stop a node with --burst or --max-jobs when its work is done."""
        if self.settings.burst and self.header.queues_empty:
            self.shutdown.drain("the queues are empty")
            if self.header.words[Header.UNKNOWN_TASK] and self.exit_code == exits.OK:
                self.exit_code = exits.FAILURE
        elif self.node.budget.exhausted and not any(handle.pid for handle in self.workers):
            self.shutdown.drain("max-jobs is reached")  # not earlier: a worker may still release jobs that count

    def report(self) -> None:
        """Report the node's state to systemd: that it is ready, its status line, and the watchdog message."""
        ready = sum(handle.ready for handle in self.workers)
        registered = self.header.node != 0
        if ready and registered and not self.announced and self.shutdown.state is State.RUNNING:
            self.announced = True
            self.notifier.ready()
            self.log.info("supervisor.ready", workers=ready)
        busy = sum(slot.words[Slot.PHASE] == Phase.RUNNING for slot in self.table.live(Role.WORKER))
        dead = sum(slot.state is SlotState.DEAD for slot in self.table)
        status = f"{self.shutdown.state.value}: {ready}/{len(self.workers)} workers, {busy} busy"
        self.notifier.status(status + (f", {dead} to recover" if dead else ""))
        self.notifier.watchdog()
