"""The shutdown of a node: drain, interrupt, kill, close; and the effects of the operator's signals."""

import enum
import signal
from collections.abc import Sequence
from math import inf
from signal import Signals
from time import monotonic

from qworkerd import log
from qworkerd.shared.cause import Cause
from qworkerd.shared.context import NodeContext
from qworkerd.supervisor.handle import ChildHandle
from qworkerd.supervisor.systemd import Notifier

#: Time that the scheduler has to settle the remaining dead slots (seconds).
CLOSING_TIMEOUT = 5.0


class State(enum.Enum):
    """The state of the node; it only moves down this list."""

    RUNNING = "running"
    DRAINING = "draining"
    INTERRUPTING = "interrupting"
    KILLING = "killing"
    CLOSING = "closing"
    STOPPED = "stopped"


class Shutdown:
    """Moves the node to the next state on a signal, on a timeout, or when all workers have exited."""

    def __init__(
        self, node: NodeContext, workers: Sequence[ChildHandle], others: Sequence[ChildHandle], notifier: Notifier
    ) -> None:
        self._settings = node.settings
        self._header = node.table.header
        self._workers = workers
        #: The children that stop last: the scheduler, and the exporter if there is one.
        self._others = others
        self._notifier = notifier
        self._log = log.get()
        self.state = State.RUNNING
        self._scheduler_awaited = False
        #: When the state times out (monotonic).
        self.until = inf

    def handle_signal(self, info: signal.struct_siginfo | None) -> None:
        """Handle a signal; None and SIGCHLD have no effect."""
        if info is None or info.si_signo == Signals.SIGCHLD:
            return
        name = Signals(info.si_signo).name
        self._log.info("supervisor.signalled", signal=name, sender_pid=info.si_pid)
        if info.si_signo == Signals.SIGTERM:
            self.drain(name)
        elif info.si_signo == Signals.SIGINT and self.state is State.RUNNING:
            self.drain(name, hint="press Ctrl-C again to interrupt the running jobs, and a third time to kill them")
        elif info.si_signo in (Signals.SIGINT, Signals.SIGQUIT):
            if self.state in (State.RUNNING, State.DRAINING):
                self.interrupt()
            elif self.state is State.INTERRUPTING:
                self.kill()

    def drain(self, reason: str, **hint: str) -> None:
        """Claim no more jobs, and let running jobs finish."""
        if self.state is not State.RUNNING:
            return
        self._begin(State.DRAINING, self._settings.shutdown_timeout)
        self._log.info("supervisor.draining", reason=reason, timeout=self._settings.shutdown_timeout, **hint)
        self._signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Interrupt the running handlers; their jobs are released, and the attempts are not counted."""
        self._begin(State.INTERRUPTING, self._settings.interrupt_timeout)
        self._log.warning("supervisor.interrupting", workers=self._running(), timeout=self._settings.interrupt_timeout)

    def kill(self) -> None:
        """Kill the remaining workers."""
        self._begin(State.KILLING, inf)
        self._log.warning("supervisor.killing", workers=self._running())
        for worker in self._workers:
            if worker.pid:
                worker.kill(worker.kill_reason or Cause.SHUTDOWN, monotonic())

    def advance(self) -> None:
        """Enter the next state if this one is over. The scheduler stops last: it renews the lease until then."""
        over = monotonic() >= self.until
        match self.state:
            case State.RUNNING | State.STOPPED:
                return
            case State.CLOSING:
                self._close(over=over)
            case _ if not self._running() and self._await_scheduler():
                return
            case _ if not self._running():
                self._begin(State.CLOSING, CLOSING_TIMEOUT)
                for child in self._others:
                    child.signal(signal.SIGTERM)
            case State.DRAINING if over:
                self.interrupt()
            case State.INTERRUPTING if over:
                self.kill()
            case State.INTERRUPTING:
                # Sent repeatedly, because a signal between two jobs interrupts no handler. A worker interrupts a job
                # only once.
                self._signal(signal.SIGQUIT)

    def _begin(self, state: State, timeout: float) -> None:
        """Enter a state for at most `timeout` seconds."""
        if self.state is State.RUNNING:
            self._header.draining = True
            self._notifier.stopping()
        self.state, self.until = state, monotonic() + timeout

    def _await_scheduler(self) -> bool:
        """Return whether a dead scheduler is started first, once: it deregisters the node and writes its counts."""
        scheduler = self._others[0]
        if scheduler.pid or not self._header.node or self._scheduler_awaited:
            return False
        scheduler.due, self._scheduler_awaited = 0.0, True
        return True

    def _close(self, *, over: bool) -> None:
        left = [child for child in self._others if child.pid]
        if not left:
            self.state = State.STOPPED
        elif over:
            self.until = inf
            for child in left:
                child.kill(Cause.SHUTDOWN, monotonic())

    def _running(self) -> int:
        return sum(worker.pid != 0 for worker in self._workers)

    def _signal(self, signum: Signals) -> None:
        for worker in self._workers:
            worker.signal(signum)
