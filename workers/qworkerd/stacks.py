"""The stacks of children that are killed or crash: written by the interpreter's own C code, read when they are dead."""

import faulthandler
import os
import signal

#: Asks a child for its stacks before it is killed. (SIGUSR2 is for people, and answers on standard error.)
ASK = signal.SIGRTMIN

#: So much of them is kept (bytes): the thread that was at fault comes first.
LIMIT = 8_192
#: So much of a page is looked at (bytes).
_READ = 1 << 16
#: So far apart are two pages (bytes), further than the longest dump goes. What is not written takes no memory.
_PAGE = 1 << 24


class Stacks:
    """A file in memory with a page for each child: one descriptor, however many children there are.

    The module faulthandler writes into it without the interpreter's lock, be it asked to or because of SIGSEGV,
    SIGABRT, SIGBUS, SIGFPE or SIGILL: also when C code does not return, or has damaged what Python needs.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("qworker-stacks", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)


class Page:
    """Where one child leaves its stacks."""

    __slots__ = ("_stacks", "_start")

    def __init__(self, stacks: Stacks, number: int) -> None:
        self._stacks = stacks
        self._start = number * _PAGE

    def collect(self) -> int:
        """Have this process, and what it forks, leave its stacks here; return the descriptor that this takes."""
        # Opened anew, for a place in the file of its own.
        fd = os.open(f"/proc/self/fd/{self._stacks.fd}", os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(fd, self._start, os.SEEK_SET)
        faulthandler.enable(file=fd, all_threads=True)
        faulthandler.register(ASK, file=fd, all_threads=True, chain=False)
        return fd

    def clear(self) -> None:
        """Forget what is there."""
        written = len(self._text().rstrip(b"\0"))
        os.pwrite(self._stacks.fd, bytes(written), self._start)

    def read(self) -> str:
        """Return what was left, "" if nothing was."""
        # What a child leaves after it was pardoned stands behind what was cleared.
        return self._text().strip(b"\0")[:LIMIT].decode(errors="replace").strip()

    def _text(self) -> bytes:
        return os.pread(self._stacks.fd, _READ, self._start)


def disown() -> None:
    """Leave no stacks any more: a process that a handler has forked is no child of ours."""
    faulthandler.disable()
    faulthandler.unregister(ASK)
