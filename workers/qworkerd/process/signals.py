"""The supervisor's signals, which are blocked, and received one at a time in its loop.

No signal handler runs in the supervisor. Between a fork and the installation of the child's handlers, a signal stays
pending instead of being handled by a copy of the parent's handler.
"""

import faulthandler
import signal
from signal import Signals

#: The signals that the supervisor handles.
HANDLED = frozenset({Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP, Signals.SIGQUIT, Signals.SIGCHLD})


def block() -> frozenset[Signals]:
    """Block and return the supervisor's signals, except those that the process was started to ignore (nohup, `&`).

    SIGUSR2 is not included: it dumps the stacks of the process. An inherited SIG_IGN for SIGCHLD would make the kernel
    reap children itself, so SIGCHLD is reset first.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Children inherit this, so a child that hangs early can be dumped too. It is written in C and needs no GIL.
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)
    watched = frozenset(s for s in HANDLED if signal.getsignal(s) is not signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, watched | {Signals.SIGALRM})
    return watched


def wait_for_signal(watched: frozenset[Signals], timeout: float) -> signal.struct_siginfo | None:
    """Wait up to `timeout` seconds for a signal; return None if there was none.

    The timeout is a blocked SIGALRM: if the process is stopped (SIGSTOP) when sigtimedwait times out, CPython returns
    uninitialized memory, which may contain an earlier signal.
    """
    signal.setitimer(signal.ITIMER_REAL, max(timeout, 1e-6))
    info = signal.sigwaitinfo(watched | {Signals.SIGALRM})
    return None if info.si_signo == Signals.SIGALRM else info


def ignore(_signum: int, _frame: object) -> None:
    """Ignore a signal.

    A child handles the signals that a terminal sends to its whole session with this function. SIG_IGN would survive
    exec, and a job's subprocesses could not be interrupted.
    """
