"""The supervisor: one thread, no database, no signal handlers. It forks, watches, kills and replaces the children."""

from collections.abc import Callable, Mapping
from signal import Signals
from time import monotonic

from qworkerd import log
from qworkerd.process import exits, signals
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

#: The longest sleep between two rounds (seconds). A deadline written during it is seen at its end.
TICK = 0.5
#: The same until the first worker is ready: somebody waits for the node to be up.
BOOT_TICK = 0.05
#: A dead worker that has counted more is not believed: what killed it may have written into its slot before.
CREDIBLE = 1_000_000


class Supervisor:
    """Keeps one scheduler and N workers alive until it is told to stop; `run` returns the exit code."""

    def __init__(self, node: NodeContext, mains: Mapping[Role, Callable[[Slot], int]], notifier: Notifier) -> None:
        self.node = node
        self.settings = node.settings
        self.table = node.table
        self.header = node.table.header
        self.mains = mains
        self.notifier = notifier
        self.log = log.get()
        self.scheduler = ChildHandle(Role.SCHEDULER, 0)
        self.workers = [ChildHandle(Role.WORKER, number) for number in range(1, node.settings.processes + 1)]
        self.children = [self.scheduler, *self.workers]
        self.causes = CauseFinder()
        self.deadlines = DeadlineEnforcer(node)
        self.slow = SlowJobs(node)
        self.shutdown = Shutdown(node, self.workers, self.scheduler, notifier)
        self.announced = False
        self.exit_code = exits.OK
        self.watched: frozenset[Signals] = frozenset()

    def run(self) -> int:
        """Supervise until stopped."""
        self.watched = signals.watch()
        self.log.info("supervisor.started", processes=self.settings.processes, queues=list(self.settings.queues))
        while self.shutdown.state is not State.STOPPED:
            self.header.supervisor_seen_at = boottime()
            self.respawn()
            self.shutdown.answer(signals.take(self.watched, self.sleep()))
            for death in reap():
                self.on_child_exit(death)
            self.enforce_lease()
            self.deadlines.enforce(self.children)
            self.slow.log_new()
            self.finish()
            self.shutdown.advance()
            self.report()
        self.log.info("supervisor.stopped", exit_code=self.exit_code)
        return self.exit_code

    def sleep(self) -> float:
        """Return how long nothing can be due (seconds)."""
        now = monotonic()
        due = [now + (TICK if self.announced else BOOT_TICK), self.shutdown.until]
        for seat in self.children:
            if seat.slot is not None:
                due.append(self.deadlines.due(seat, seat.slot))
            elif self.wanted(seat):
                due.append(seat.due)
        if (lease := self.header.lease_until - boottime()) > 0:
            due.append(now + lease)
        return max(min(due) - now, 0.001)

    # Children

    def wanted(self, seat: ChildHandle) -> bool:
        """Tell whether the seat is to be filled: the scheduler's until the end, a worker's while it may take work."""
        if seat.role is Role.SCHEDULER:
            return self.shutdown.state is not State.CLOSING
        return self.shutdown.state is State.RUNNING and not self.node.budget.spent and self.leased

    @property
    def leased(self) -> bool:
        """Whether the node holds its lease; before the registration workers may boot already."""
        return self.header.node == 0 or boottime() < self.header.lease_until

    def respawn(self) -> None:
        """Fill the empty seats whose time has come, the scheduler's first."""
        for seat in self.children:
            if seat.pid == 0 and self.wanted(seat) and monotonic() >= seat.due:
                self.spawn(seat)

    def spawn(self, seat: ChildHandle) -> None:
        """Fork a child into a free slot; without one, wait for the scheduler to settle a grave."""
        now, slot = monotonic(), self.table.free_slot()
        if slot is None:
            seat.due = now + TICK
            return
        slot.assign(seat.role, seat.number, now + self.settings.boot_timeout, now)
        try:
            pid = child.fork(seat.role, slot, self.mains[seat.role])
        except OSError as error:  # no process or no memory to be had: the children that live must not die for it
            slot.free()
            seat.due = now + TICK
            self.log.warning("child.fork_failed", child=seat.name, error=str(error), again_in=TICK)
            return
        slot.words[Slot.PID] = pid
        seat.started(pid, slot, now)
        self.log.debug("child.spawned", child=seat.name, child_pid=pid)

    def on_child_exit(self, death: ChildExit) -> None:
        """A child has died: say why, leave its claims to the scheduler, decide when to replace it."""
        seat = next((s for s in self.children if s.pid == death.pid), None)
        if seat is None or seat.slot is None:
            return  # an orphan that we inherited as process 1
        slot, now = seat.slot, monotonic()
        running = slot.current()
        beside = slot.words[Slot.CANCEL] not in (0, running.id if running else 0)
        cause = self.causes.cause_of(death, seat.kill_reason, seat.sent, cancelled_another=beside)
        fine = expected_exit(death, running)
        entries = [entry for claim in slot.open_claims() for entry in claim.entries()]
        self.node.budget.restore(sum(entry.status is Status.UNSTARTED for entry in entries))
        # A job may have broken it, be it one that has ended since: those that wait have not deserved a pause.
        worked = any(entry.status is not Status.UNSTARTED for entry in entries)
        self.header.words[Header.STALE] += min(max(slot.words[Slot.STALE], 0), CREDIBLE)
        facts = {
            "child": seat.name, "child_pid": death.pid, "cause": cause, "uptime": round(now - seat.since, 3),
            "jobs_done": slot.done, "maxrss_mib": death.maxrss, "cpu": death.cpu,
        }  # fmt: skip
        if running is not None:
            facts |= {"job": running.id, "task": self.node.task_name(running.task), "attempt": running.attempt}
        if stacks := slot.stacks.read():
            facts["stacks"] = stacks
        if death.code == exits.CONFIG and not self.announced:
            self.exit_code = exits.CONFIG
            self.shutdown.drain("configuration")
        if keep_or_free_slot(slot, cause, death):
            self.node.scheduler_wakeup.wake()
        delay = seat.exited(now, blameless=fine or worked or bool(seat.kill_reason))
        report = self.log.debug if fine else self.log.warning
        report("child.ended" if fine else "child.died", **facts, respawn_in=round(delay, 3))

    def enforce_lease(self) -> None:
        """Kill the workers when others may take their jobs: no handler may run on two nodes at once."""
        if self.leased or self.shutdown.state is State.CLOSING:
            return
        alive = [seat for seat in self.workers if seat.pid]
        for seat in (seat for seat in alive if seat.kill_reason != "lease"):
            self.log.error("worker.lease_lost", child=seat.name, child_pid=seat.pid, hint="others may take its jobs")
            seat.kill("lease", monotonic())
        if self.header.declared_dead and not alive:
            self.header.node = 0  # what the graves hold is others' now; the scheduler registers anew
            self.header.declared_dead = False
            self.node.scheduler_wakeup.wake()

    # The node

    def finish(self) -> None:
        """Stop by ourselves when that was asked for and the work is done."""
        if self.settings.burst and self.header.queues_empty:
            self.shutdown.drain("the queues are empty")
            if self.header.words[Header.UNKNOWN_TASK] and self.exit_code == exits.OK:
                self.exit_code = exits.FAILURE
        elif self.node.budget.spent and not any(seat.pid for seat in self.workers):
            self.shutdown.drain("max-jobs is reached")  # not before: what a worker hands back is to be run

    def report(self) -> None:
        """Tell systemd how the node is: ready once a worker is, alive each round."""
        ready = sum(seat.ready for seat in self.workers)
        registered = self.header.node != 0
        if ready and registered and not self.announced and self.shutdown.state is State.RUNNING:
            self.announced = True
            self.notifier.ready()
            self.log.info("supervisor.ready", workers=ready)
        busy = sum(slot.words[Slot.PHASE] == Phase.RUNNING for slot in self.table.live(Role.WORKER))
        graves = sum(slot.state is SlotState.DEAD for slot in self.table)
        status = f"{self.shutdown.state.value}: {ready}/{len(self.workers)} workers, {busy} busy"
        self.notifier.status(status + (f", {graves} to bury" if graves else ""))
        self.notifier.watchdog()
