"""Handles processes that handlers fork (os.fork, multiprocessing), which must not act as a second worker."""

import os
import signal
import threading
from collections.abc import Iterable

from qworkerd.log.job_lines import job_lines
from qworkerd.shared import stacks


class Forks:
    """Hooks around fork, registered once in a worker for the life of the process.

    In the child, signals get their default action, so that SIGTERM ends it. With the worker's handlers it would instead
    continue a job of another process. Signals are blocked during the fork: one that arrives then would be handled by
    the worker's handler in the child, or be lost, because CPython drops pending signals in a new child.
    """

    def __init__(self) -> None:
        #: Whether this process was forked by a handler.
        self.in_forked_child = False
        self._masks = threading.local()
        os.register_at_fork(
            before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self._after_fork_in_child
        )

    def _block_signals(self) -> None:
        # Read the mask before it is changed: a signal may raise an exception while it is being blocked.
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _unblock_signals(self) -> None:
        before: Iterable[int] = getattr(self._masks, "before", ())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _after_fork_in_child(self) -> None:
        self.in_forked_child = True
        stacks.stop_dumping()
        job_lines.stop()
        signal.set_wakeup_fd(-1)
        for signum in signal.valid_signals():
            if callable(signal.getsignal(signum)):
                signal.signal(signum, signal.SIG_DFL)
        self._unblock_signals()
