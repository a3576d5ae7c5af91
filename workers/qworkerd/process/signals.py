"""The supervisor's signals: blocked, and taken one at a time between two steps of its loop.

No handler ever runs in the supervisor, so nothing is done in one; between a fork and the child's own handlers a signal
stays pending instead of being lost in a copy of the parent's.
"""

import faulthandler
import signal
from signal import Signals

#: What the supervisor answers to.
ANSWERED = frozenset({Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP, Signals.SIGQUIT, Signals.SIGCHLD})


def watch() -> frozenset[Signals]:
    """Block the supervisor's signals and return them, without those the process was started to ignore (nohup, `&`).

    SIGUSR2 is not among them: it dumps the stacks of whoever gets it.

    An inherited SIG_IGN for SIGCHLD would make the kernel reap the children unseen: it is reset first.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Children inherit it: one that hangs in its first steps can show its stacks as well. Written in C, it needs no GIL.
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)
    watched = frozenset(s for s in ANSWERED if signal.getsignal(s) is not signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, watched | {Signals.SIGALRM})
    return watched


def take(watched: frozenset[Signals], timeout: float) -> signal.struct_siginfo | None:
    """Wait up to `timeout` seconds for a signal; None when none came.

    The end of the time is a signal too, a blocked SIGALRM. CPython's sigtimedwait returns memory that was never written
    when its time is over while the process is frozen (SIGSTOP): garbage, or an order that was given before.
    """
    signal.setitimer(signal.ITIMER_REAL, max(timeout, 1e-6))
    info = signal.sigwaitinfo(watched | {Signals.SIGALRM})
    return None if info.si_signo == Signals.SIGALRM else info


def ignore(_signum: int, _frame: object) -> None:
    """Answer a signal by nothing.

    A child's answer to what a terminal sends its whole session. Not SIG_IGN: that would survive exec, and subprocesses
    of jobs could not be interrupted.
    """
