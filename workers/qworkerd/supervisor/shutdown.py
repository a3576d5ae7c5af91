"""The way down: drain, interrupt, kill, close. What the operator's signals mean."""

import enum
import signal
from collections.abc import Sequence
from math import inf
from signal import Signals
from time import monotonic

from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.supervisor.handle import ChildHandle
from qworkerd.supervisor.systemd import Notifier

#: How long the scheduler may take to settle the last graves (seconds).
CLOSING_TIMEOUT = 5.0


class State(enum.Enum):
    """Where the node stands; it only moves down this list."""

    RUNNING = "running"
    DRAINING = "draining"
    INTERRUPTING = "interrupting"
    KILLING = "killing"
    CLOSING = "closing"
    STOPPED = "stopped"


class Shutdown:
    """Moves the node from one state to the next: by a signal, by time, or because nobody is left to wait for."""

    def __init__(
        self, node: NodeContext, workers: Sequence[ChildHandle], scheduler: ChildHandle, notifier: Notifier
    ) -> None:
        self._settings = node.settings
        self._header = node.table.header
        self._workers = workers
        self._scheduler = scheduler
        self._notifier = notifier
        self._log = log.get()
        self.state = State.RUNNING
        #: When the state is over (monotonic).
        self.until = inf

    def answer(self, info: signal.struct_siginfo | None) -> None:
        """Do what a signal asks."""
        if info is None or info.si_signo == Signals.SIGCHLD:
            return
        name = Signals(info.si_signo).name
        self._log.info("supervisor.signalled", signal=name, sender_pid=info.si_pid)
        if info.si_signo == Signals.SIGTERM:
            self.drain(name)
        elif info.si_signo == Signals.SIGINT and self.state is State.RUNNING:
            self.drain(name, hint="Ctrl-C again interrupts the running jobs, a third time kills them")
        elif info.si_signo in (Signals.SIGINT, Signals.SIGQUIT):
            if self.state in (State.RUNNING, State.DRAINING):
                self.interrupt()
            elif self.state is State.INTERRUPTING:
                self.kill()

    def drain(self, reason: str, **hint: str) -> None:
        """Take no new work; let the running jobs end."""
        if self.state is not State.RUNNING:
            return
        self._begin(State.DRAINING, self._settings.shutdown_timeout)
        self._log.info("supervisor.draining", reason=reason, timeout=self._settings.shutdown_timeout, **hint)
        self._signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Interrupt the running handlers; their jobs are handed back uncounted."""
        self._begin(State.INTERRUPTING, self._settings.interrupt_timeout)
        self._log.warning("supervisor.interrupting", workers=self._left(), timeout=self._settings.interrupt_timeout)

    def kill(self) -> None:
        """Kill what is left."""
        self._begin(State.KILLING, inf)
        self._log.warning("supervisor.killing", workers=self._left())
        for seat in self._workers:
            if seat.pid:
                seat.kill(seat.kill_reason or "shutdown", monotonic())

    def advance(self) -> None:
        """Go on when this state is over. The scheduler stops last: it renews the lease until every worker is reaped."""
        over = monotonic() >= self.until
        match self.state:
            case State.RUNNING | State.STOPPED:
                return
            case State.CLOSING:
                self._close(over=over)
            case _ if not self._left():
                self._begin(State.CLOSING, CLOSING_TIMEOUT)
                self._scheduler.signal(signal.SIGTERM)
            case State.DRAINING if over:
                self.interrupt()
            case State.INTERRUPTING if over:
                self.kill()
            case State.INTERRUPTING:
                # Again each round: a signal between two jobs finds no handler to interrupt. A worker passes it on once.
                self._signal(signal.SIGQUIT)

    def _begin(self, state: State, timeout: float) -> None:
        """Enter a state for at most so many seconds."""
        if self.state is State.RUNNING:
            self._header.draining = True
            self._notifier.stopping()
        self.state, self.until = state, monotonic() + timeout

    def _close(self, *, over: bool) -> None:
        if not self._scheduler.pid:
            self.state = State.STOPPED
        elif over:
            self.until = inf
            self._scheduler.kill("shutdown", monotonic())

    def _left(self) -> int:
        return sum(seat.pid != 0 for seat in self._workers)

    def _signal(self, signum: Signals) -> None:
        for seat in self._workers:
            seat.signal(signum)
