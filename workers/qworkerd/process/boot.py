"""The last step of a start that worker and scheduler have in common."""

import signal
from collections.abc import Callable, Mapping
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def receive_signals(wakeup_fd: int, handlers: Mapping[signal.Signals, Handler]) -> None:
    """Install the signal handlers of this process, then unblock all signals.

    Signals are blocked since before the fork, so those that arrived meanwhile find their handlers. Each signal also
    writes to wakeup_fd, because a poll that is interrupted by a handler continues afterwards (PEP 475).
    """
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
