"""The supervisor: one thread, no database, no signal handlers. It forks, watches, kills and replaces the children."""

import enum
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from signal import Signals
from time import monotonic

from qworkerd import exits, log, signals
from qworkerd.node import Node
from qworkerd.slots import Phase, Role, Slot, SlotState, boottime
from qworkerd.supervisor import child
from qworkerd.supervisor.reaper import Coroner, Death, expected, inter, kill_group, reap
from qworkerd.supervisor.seat import Seat
from qworkerd.supervisor.slow import SlowJobs
from qworkerd.supervisor.systemd import Notifier

#: The longest sleep between two rounds (seconds). A deadline written during it is seen at its end.
TICK = 0.5
#: Between the first look that finds a child overdue and the second; between the dump of its stacks and the kill.
SECOND_LOOK = 0.1
LAST_WORDS = 0.5
#: How long the scheduler may take to settle the last graves.
CLOSING = 5.0


class State(enum.Enum):
    """Where the node stands; it only moves down this list."""

    RUNNING = "running"
    DRAINING = "draining"
    INTERRUPTING = "interrupting"
    KILLING = "killing"
    CLOSING = "closing"
    STOPPED = "stopped"


_STOPPING = (State.DRAINING, State.INTERRUPTING, State.KILLING)


class Supervisor:
    """Keeps one scheduler and N workers alive until it is told to stop; `run` returns the exit code."""

    def __init__(self, node: Node, mains: dict[Role, Callable[[Slot], int]], notifier: Notifier) -> None:
        self.node = node
        self.settings = node.settings
        self.table = node.table
        self.header = node.table.header
        self.mains = mains
        self.notifier = notifier
        self.log = log.get()
        self.coroner = Coroner()
        self.slow = SlowJobs(node)
        self.scheduler = Seat(Role.SCHEDULER, 0)
        self.workers = [Seat(Role.WORKER, number) for number in range(1, node.settings.processes + 1)]
        self.seats = [self.scheduler, *self.workers]
        self.state = State.RUNNING
        self.until = float("inf")  # when the state is over (monotonic)
        self.announced = False
        self.exit_code = exits.OK
        self.watched: frozenset[Signals] = frozenset()

    def run(self) -> int:
        """Supervise until stopped."""
        self.watched = signals.watch()
        self.log.info("supervisor.started", processes=self.settings.processes, queues=list(self.settings.queues))
        while self.state is not State.STOPPED:
            self.header.looked = boottime()
            self.respawn()
            self.answer(signals.take(self.watched, self.sleep()))
            for death in reap():
                self.mourn(death)
            self.enforce_lease()
            self.end_overdue()
            self.slow.look()
            self.advance()
            self.report()
        self.log.info("supervisor.stopped", exit_code=self.exit_code)
        return self.exit_code

    def sleep(self) -> float:
        """Return how long nothing can be due (seconds)."""
        now = monotonic()
        due = [now + TICK, self.until]
        for seat in self.seats:
            if seat.slot is None:
                due.append(seat.due if self.wanted(seat) else now + TICK)
            elif seat.sentence:
                due.append(seat.execution)
            else:
                due.append(seat.suspected + SECOND_LOOK if seat.suspicion else seat.slot.floats[Slot.DEADLINE])
        if (lease := self.header.lease_until - boottime()) > 0:
            due.append(now + lease)
        return max(min(due) - now, 0.001)

    # Children: fork, mourn, replace

    def wanted(self, seat: Seat) -> bool:
        """Tell whether the seat is to be filled: the scheduler's until the end, a worker's while there is work to take."""
        if seat.role is Role.SCHEDULER:
            return self.state is not State.CLOSING
        return self.state is State.RUNNING and not self.node.budget.spent and self.leased

    @property
    def leased(self) -> bool:
        """Whether the node holds its lease; before the registration workers may boot already."""
        return self.header.node == 0 or boottime() < self.header.lease_until

    def respawn(self) -> None:
        """Fill the empty seats whose time has come, the scheduler's first."""
        for seat in self.seats:
            if seat.pid == 0 and self.wanted(seat) and monotonic() >= seat.due:
                self.spawn(seat)

    def spawn(self, seat: Seat) -> None:
        """Fork a child into a free slot; without one wait for the scheduler to settle a grave."""
        slot = self.table.vacant()
        if slot is None:
            seat.due = monotonic() + TICK
            return
        now = monotonic()
        slot.occupy(seat.role, seat.number, now + self.settings.boot_timeout, now)
        pid = child.fork(seat.role, slot, self.mains[seat.role])
        slot.words[Slot.PID] = pid
        seat.seat(pid, slot, now)
        self.log.debug("child.spawned", child=seat.name, child_pid=pid)

    def mourn(self, death: Death) -> None:
        """A child has died: say why, leave its claims to the scheduler, decide when to replace it."""
        seat = next((s for s in self.seats if s.pid == death.pid), None)
        if seat is None or seat.slot is None:
            return  # an orphan that we inherited as process 1
        slot, now = seat.slot, monotonic()
        running, cause = slot.current(), self.coroner.examine(death, seat.sentence)
        fine = expected(death, running)
        unstarted = sum(e.status == 0 for claim in slot.open_claims() for e in claim.entries())
        self.node.budget.give_back(unstarted)
        facts = {"child": seat.name, "child_pid": death.pid, "cause": cause, "uptime": round(now - seat.since, 3),
                 "jobs_done": slot.done, "maxrss_mib": death.maxrss, "cpu": death.cpu}  # fmt: skip
        if running is not None:
            facts |= {"job": running.id, "task": self.node.task_name(running.task), "attempt": running.attempt}
        blameless = fine or running is not None or bool(seat.sentence)
        if not seat.ready and death.code == exits.CONFIG and not self.announced:
            self.exit_code = exits.CONFIG
            self.drain("configuration")
        if inter(slot, cause):
            self.node.poke.ring()
        delay = seat.vacate(now, blameless=blameless)
        report = self.log.debug if fine else self.log.warning
        report("child.ended" if fine else "child.died", **facts, respawn_in=round(delay, 3))

    # Deadlines

    def enforce_lease(self) -> None:
        """Kill the workers when others may take their jobs: no handler may run on two nodes at once."""
        if self.leased or self.state is State.CLOSING:
            return
        alive = [seat for seat in self.workers if seat.pid]
        for seat in (seat for seat in alive if seat.sentence != "lease"):
            self.log.error("worker.lease_lost", child=seat.name, child_pid=seat.pid, hint="others may take its jobs")
            seat.sentence, seat.execution = "lease", float("inf")
            kill_group(seat.pid)
        if self.header.condemned and not alive:
            self.header.node = 0  # its graves are void; the scheduler registers anew
            self.header.condemned = False
            self.node.poke.ring()

    def end_overdue(self) -> None:
        """Kill children that are past their deadline in two looks: stacks first, then the whole group."""
        now = monotonic()
        for seat in self.seats:
            if seat.slot is None or not seat.pid:
                continue
            if seat.sentence:
                if now >= seat.execution:
                    seat.execution = float("inf")
                    kill_group(seat.pid)
                continue
            found = self.overdue(seat.slot, now)
            if found is None or seat.suspicion != found:
                seat.suspicion, seat.suspected = found, now
            elif now - seat.suspected >= SECOND_LOOK:
                self.condemn(seat, now)

    @staticmethod
    def overdue(slot: Slot, now: float) -> tuple[int, float] | None:
        """Return the phase and the deadline that is over, if one is."""
        if slot.floats[Slot.DEADLINE] < now:
            return slot.words[Slot.PHASE], slot.floats[Slot.DEADLINE]
        clerk = slot.floats[Slot.CLERK_DEADLINE]
        return (Phase.SETTLING, clerk) if 0 < clerk < now else None

    def condemn(self, seat: Seat, now: float) -> None:
        """Have the child dump its stacks, and be killed a moment later."""
        if seat.slot is None or seat.suspicion is None:
            return
        running = seat.slot.current()
        phase = Phase(seat.suspicion[0])
        seat.sentence = "timeout" if phase is Phase.RUNNING and running else "stalled"
        seat.execution = now + LAST_WORDS
        facts = {"job": running.id, "task": self.node.task_name(running.task)} if running else {}
        self.log.warning("child.overdue", child=seat.name, child_pid=seat.pid, phase=phase.name.lower(),
                         overdue_by=round(now - seat.suspicion[1], 3), **facts)  # fmt: skip
        with suppress(ProcessLookupError):
            os.kill(seat.pid, signal.SIGUSR2)

    # Stopping

    def answer(self, info: signal.struct_siginfo | None) -> None:
        """Do what a signal asks."""
        if info is None or info.si_signo == Signals.SIGCHLD:
            return
        name = Signals(info.si_signo).name
        self.log.info("supervisor.signalled", signal=name, sender_pid=info.si_pid)
        if info.si_signo == Signals.SIGTERM:
            self.drain(name)
        elif info.si_signo == Signals.SIGQUIT:
            self.press(interrupt=True)
        elif info.si_signo == Signals.SIGINT:
            self.press(interrupt=False)

    def press(self, *, interrupt: bool) -> None:
        """Ctrl-C: first drain, then interrupt, then kill. SIGQUIT begins with the interrupt."""
        if self.state is State.RUNNING and not interrupt:
            self.drain("SIGINT", hint="Ctrl-C again interrupts the running jobs, a third time kills them")
        elif self.state in (State.RUNNING, State.DRAINING):
            self.interrupt()
        elif self.state is State.INTERRUPTING:
            self.kill()

    def drain(self, reason: str, **hint: str) -> None:
        """Take no new work; let the running jobs end."""
        if self.state is not State.RUNNING:
            return
        self.header.draining = True
        self.notifier.stopping()
        self.log.info("supervisor.draining", reason=reason, timeout=self.settings.shutdown_timeout, **hint)
        self.move(State.DRAINING, self.settings.shutdown_timeout)
        self.signal_workers(signal.SIGTERM)

    def interrupt(self) -> None:
        """Interrupt the running handlers; their jobs are handed back uncounted."""
        self.header.draining = True
        self.notifier.stopping()
        busy = sum(seat.pid != 0 for seat in self.workers)
        self.log.warning("supervisor.interrupting", workers=busy, timeout=self.settings.interrupt_timeout)
        self.move(State.INTERRUPTING, self.settings.interrupt_timeout)
        self.signal_workers(signal.SIGQUIT)

    def kill(self) -> None:
        """Kill what is left."""
        self.log.warning("supervisor.killing", workers=sum(seat.pid != 0 for seat in self.workers))
        self.move(State.KILLING, float("inf"))
        for seat in self.workers:
            if seat.pid:
                seat.sentence, seat.execution = seat.sentence or "shutdown", float("inf")
                kill_group(seat.pid)

    def move(self, state: State, timeout: float) -> None:
        """Enter a state for at most so many seconds."""
        self.state, self.until = state, monotonic() + timeout

    def signal_workers(self, signum: Signals) -> None:
        """Signal each worker, not its group: subprocesses of jobs are the jobs' business."""
        for seat in self.workers:
            if seat.pid:
                with suppress(ProcessLookupError):
                    os.kill(seat.pid, signum)

    def advance(self) -> None:
        """Go on to the next state when this one is over. The scheduler stops last: it renews until all are reaped."""
        now = monotonic()
        working = any(seat.pid for seat in self.workers)
        if self.state is State.RUNNING:
            if self.header.empty and self.settings.drain:
                self.drain("queues are empty")
            elif self.node.budget.spent:
                self.drain("max-jobs reached")
        if self.state in _STOPPING and not working:
            self.move(State.CLOSING, CLOSING)
            if self.scheduler.pid:
                with suppress(ProcessLookupError):
                    os.kill(self.scheduler.pid, signal.SIGTERM)
        elif self.state is State.DRAINING and now >= self.until:
            self.interrupt()
        elif self.state is State.INTERRUPTING and now >= self.until:
            self.kill()
        elif self.state is State.CLOSING:
            if not self.scheduler.pid:
                self.state = State.STOPPED
            elif now >= self.until:
                self.until = float("inf")
                self.scheduler.sentence, self.scheduler.execution = "shutdown", float("inf")
                kill_group(self.scheduler.pid)

    # systemd

    def report(self) -> None:
        """Tell systemd how the node is: ready once a worker is, alive each round."""
        ready = sum(seat.ready for seat in self.workers)
        if ready and not self.announced and self.state is State.RUNNING:
            self.announced = True
            self.notifier.ready()
            self.log.info("supervisor.ready", workers=ready)
        busy = sum(s.words[Slot.PHASE] == Phase.RUNNING for s in self.table.live(Role.WORKER))
        graves = sum(s.state is SlotState.DEAD for s in self.table)
        status = f"{self.state.value}: {ready}/{len(self.workers)} workers, {busy} busy"
        self.notifier.status(status + (f", {graves} to bury" if graves else ""))
        self.notifier.watchdog()
