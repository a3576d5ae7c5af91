"""The signal handlers of a worker: installed once, and restored after a handler has changed them."""

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from qworkerd import log
from qworkerd.process.boot import Handler, receive_signals
from qworkerd.worker.interrupts import InterruptGate

# The module below `signal`: the wrappers there take three microseconds to look for an enumeration.
getsignal: Callable[[int], Any] = sys.modules["_signal"].getsignal

#: After a job shorter than this the check is skipped until the end of the batch (seconds).
MIN_CHECKED = 0.0002

#: Signals that a node sends to its workers or receives from a terminal; they need the worker's handlers.
WORKER_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT, signal.SIGHUP)
#: A library may install a handler for these. With SIG_DFL a closed pipe would kill the next job; with SIG_IGN its
#: subprocesses could not be waited for (wait(2)).
LIBRARY_SIGNALS = (signal.SIGPIPE, signal.SIGCHLD)


class Dispositions:
    """The signal handlers, signal mask, wakeup descriptor and timer that each job must find unchanged.

    Only the main thread may change signal handlers; the mask is the main thread's.
    """

    def __init__(self, gate: InterruptGate, wakeup_fd: int) -> None:
        self._gate = gate
        self._wakeup_fd = wakeup_fd
        self._handlers: tuple[tuple[signal.Signals, Any], ...] = ()
        self._shared: tuple[tuple[signal.Signals, Any], ...] = ()
        self._reported: set[str] = set()
        self._log = log.get()

    def install(self, handlers: Mapping[signal.Signals, Handler]) -> None:
        """Install the worker's handlers and unblock all signals. `restore` restores this state."""
        receive_signals(self._wakeup_fd, handlers)
        self._handlers = tuple((signum, getsignal(signum)) for signum in WORKER_SIGNALS)
        self._shared = tuple((signum, getsignal(signum)) for signum in LIBRARY_SIGNALS)

    def restore(self, job: int, task: str) -> bool:
        """Undo changes, and return whether there were any; call this while no handler runs.

        job, task: the job that ran last, which is logged with the first change.
        """
        changed = self._restore()
        if changed and task not in self._reported:
            self._reported.add(task)
            self._log.warning(
                "signals.restored", job=job, task=task, changed=changed,
                hint="changed by this job or by a brief one before it; logged once for each task and worker",
            )  # fmt: skip
        return bool(changed)

    def _restore(self) -> list[str]:
        """Undo changes, and return a description of each.

        The handlers are restored before the mask, because a pending signal is delivered as soon as it is unblocked.
        """
        found = []
        for signum, handler in self._handlers:
            current = getsignal(signum)
            if current is not handler:
                found.append(f"{signum.name} ({_name(current)})")
                signal.signal(signum, handler)
        for signum, handler in self._shared:
            current = getsignal(signum)
            if current is not handler and not callable(current):
                found.append(f"{signum.name} ({_name(current)})")
                signal.signal(signum, handler)
        if signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False) != self._wakeup_fd:
            found.append("wakeup_fd")
        if self._gate.reclaim_timer():
            found.append("ITIMER_REAL")
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if blocked:
            found.append("blocked " + " ".join(sorted(signal.Signals(n).name for n in blocked)[:8]))
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return found


def _name(handler: object) -> str:
    if handler is None:
        return "a handler not set by Python"
    try:
        return signal.Handlers(handler).name  # type: ignore[arg-type]
    except ValueError:
        return str(getattr(handler, "__qualname__", type(handler).__qualname__))
