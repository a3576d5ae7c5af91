"""A worker's signal handlers for its supervisor and scheduler: O(1), without logging, input or output."""

from time import monotonic
from types import FrameType

from qworker.errors import CancelInterrupt, ShutdownInterrupt
from qworkerd.shared.slots import Slot
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.runner import Runner


class SignalHandlers:
    """Sets `stopping`, and interrupts the running handler."""

    def __init__(self, slot: Slot, gate: InterruptGate, runner: Runner, kill_grace: float) -> None:
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
        """Stop now: interrupt the running job."""
        self.stopping = True
        self._gate.interrupt(ShutdownInterrupt)

    def on_cancel(self, _signum: int, _frame: FrameType | None) -> None:
        """Interrupt the running job if it is the one that was cancelled."""
        if self._runner.current and self._runner.current == self._slot.words[Slot.CANCEL]:
            self._slot.floats[Slot.DEADLINE] = min(self._slot.floats[Slot.DEADLINE], monotonic() + self._grace)
            self._gate.interrupt(CancelInterrupt)
