"""Forks that handlers make (os.fork, multiprocessing): the new process is the job's, and no second worker."""

import os
import signal
import threading
from collections.abc import Iterable

from qworkerd.shared import stacks


class Forks:
    """Registered once in a worker, for as long as the process lives.

    A child answers signals as any program does: to terminate it must end it, and not have it finish a job that is
    another process's. Until it does, signals wait: one that came earlier would be answered by the worker's handler, or
    be forgotten (CPython drops what is pending in a new child).
    """

    def __init__(self) -> None:
        #: Whether this process was forked by a handler.
        self.in_forked_child = False
        self._masks = threading.local()
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._after_fork_in_child)

    def _hold(self) -> None:
        # Asked for before it is changed: blocking may still answer a signal, by an exception.
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _release(self) -> None:
        before: Iterable[int] = getattr(self._masks, "before", ())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _after_fork_in_child(self) -> None:
        self.in_forked_child = True
        stacks.stop_dumping()
        signal.set_wakeup_fd(-1)
        for signum in signal.valid_signals():
            if callable(signal.getsignal(signum)):
                signal.signal(signum, signal.SIG_DFL)
        self._release()
