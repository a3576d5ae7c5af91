"""What a worker does on signals: installed once, and put right when a handler has left it changed."""

import signal
import sys
from collections.abc import Callable
from typing import Any

from qworkerd import log
from qworkerd.worker.interrupts import InterruptGate

# The module below `signal`: the wrappers there take three microseconds to look for an enumeration.
getsignal: Callable[[int], Any] = sys.modules["_signal"].getsignal

#: A job that ran for less is not followed by a look of its own (seconds): the end of its batch is.
BRIEF = 0.0002

#: Signals a node sends to its workers or receives from a terminal. Only the worker's own handlers are right for them.
OURS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT, signal.SIGHUP)
#: A library may install a handler for these; with SIG_DFL a closed pipe kills the next job, with SIG_IGN its
#: subprocesses cannot be waited for (wait(2)).
SHARED = (signal.SIGPIPE, signal.SIGCHLD)


class Dispositions:
    """The signal handlers, signal mask, wake-up descriptor and timer that every job must find.

    Of the main thread, which alone may change the handlers; the mask is that thread's.
    """

    def __init__(self, gate: InterruptGate, wakeup_fd: int) -> None:
        self._gate = gate
        self._wakeup_fd = wakeup_fd
        self._handlers: tuple[tuple[signal.Signals, Any], ...] = ()
        self._shared: tuple[tuple[signal.Signals, Any], ...] = ()
        self._reported: set[str] = set()
        self._log = log.get()

    def install(self, handlers: dict[signal.Signals, Callable[..., Any]]) -> None:
        """Install the worker's handlers and unblock all signals; what is installed now is what `restore` restores."""
        signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        self._handlers = tuple((signum, getsignal(signum)) for signum in OURS)
        self._shared = tuple((signum, getsignal(signum)) for signum in SHARED)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def restore(self, job: int, task: str) -> bool:
        """Put right what differs, and return whether anything did; call it while no handler runs.

        job and task ran last: the first time they are logged.
        """
        changed = self._restore()
        if changed and task not in self._reported:
            self._reported.add(task)
            self._log.warning(
                "signals.restored", job=job, task=task, changed=changed,
                hint="left by this job, or by a brief one just before it; logged once for each task and worker",
            )  # fmt: skip
        return bool(changed)

    def _restore(self) -> list[str]:
        """Put right what differs, and return what that was.

        The handlers come before the mask: a signal that was blocked is delivered the moment it is unblocked.
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
        return "a handler that is not Python's"
    try:
        return signal.Handlers(handler).name  # type: ignore[arg-type]
    except ValueError:
        return str(getattr(handler, "__qualname__", type(handler).__qualname__))
