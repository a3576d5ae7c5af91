"""The stacks of a child that is killed or crashes: written by the interpreter's own C code, read when it is dead."""

import faulthandler
import fcntl
import os
import signal

#: Asks a child for its stacks before it is killed. (SIGUSR2 is for people, and answers on standard error.)
ASK = signal.SIGRTMIN

#: So much of them is kept (bytes): the thread that was at fault comes first.
LIMIT = 8_192


class Stacks:
    """A file in memory that supervisor, scheduler and one child share.

    The module faulthandler writes into it without the interpreter's lock, be it asked to or because of SIGSEGV,
    SIGABRT, SIGBUS, SIGFPE or SIGILL: also when C code does not return, or has damaged what Python needs.
    """

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = os.memfd_create("qworker-stacks", os.MFD_CLOEXEC)
        # All who have inherited the descriptor share its offset.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_APPEND)

    def __del__(self) -> None:
        os.close(self._fd)

    def collect(self) -> None:
        """Have this process leave its stacks here from now on."""
        faulthandler.enable(file=self._fd, all_threads=True)
        faulthandler.register(ASK, file=self._fd, all_threads=True, chain=False)

    def clear(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._fd, 0)

    def read(self) -> str:
        """Return what was left, "" if nothing was."""
        return os.pread(self._fd, LIMIT, 0).decode(errors="replace").strip()


def disown() -> None:
    """Leave no stacks any more: a process that a handler has forked is no child of ours."""
    faulthandler.disable()
    faulthandler.unregister(ASK)
