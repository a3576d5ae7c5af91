"""A worker's signal handlers for its supervisor and scheduler: O(1), without logging, input or output."""

from time import monotonic
from types import FrameType

from qworker.errors import CancelInterrupt, ShutdownInterrupt
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Slot
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.runner import Runner


class SignalHandlers:
    """Sets `stopping`, and interrupts the running handler."""

    def __init__(self, header: Header, slot: Slot, gate: InterruptGate, runner: Runner, kill_grace: float) -> None:
        self._header = header
        self._slot = slot
        self._gate = gate
        self._runner = runner
        self._grace = kill_grace
        #: Whether the worker stops after the running job.
        self.stopping = False

    def on_term(self, _signum: int, _frame: FrameType | None) -> None:
        """Stop after the running job."""
        self.stopping = True

    def on_quit(self, _signum: int, _frame: FrameType | None) -> None:
        """Stop now: interrupt the running job. If the node is not shutting down, stop after it.

        A handler that sends the signal to its own worker would otherwise be released uncounted, and run again without
        end.
        """
        self.stopping = True
        if self._header.draining:
            self._gate.interrupt(ShutdownInterrupt)

    def on_cancel(self, _signum: int, _frame: FrameType | None) -> None:
        """Interrupt the running job if it is the one that was cancelled."""
        if self._runner.current and self._runner.current == self._slot.words[Slot.CANCEL]:
            self._slot.floats[Slot.DEADLINE] = min(self._slot.floats[Slot.DEADLINE], monotonic() + self._grace)
            self._gate.interrupt(CancelInterrupt)
