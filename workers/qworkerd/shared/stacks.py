"""The stacks of children that are killed or crash: written by the interpreter's own C code, read when they are dead."""

import ctypes
import faulthandler
import os
import signal
from contextlib import suppress

#: Asks a child for its stacks.
DUMP_SIGNAL = signal.SIGRTMIN

#: So much of them is kept (bytes): the thread that was at fault comes first.
MAX_BYTES = 8_192
#: So far apart are two pages (bytes), further than the longest dumps go. What is not written takes no memory.
_PAGE = 1 << 26
#: At the beginning of a page stands how much of it is out of date (bytes).
_HEAD = 8
_KEEP_SIZE, _PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Stacks:
    """A file in memory with a page for each child: one descriptor, however many children there are.

    The module faulthandler writes into it without the interpreter's lock, be it asked to or because of SIGSEGV,
    SIGABRT, SIGBUS, SIGFPE or SIGILL: also when C code does not return, or has damaged what Python needs.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("qworker-stacks", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)


class StackDump:
    """Where one child leaves its stacks. It writes on behind what it has written, also when that was cleared."""

    __slots__ = ("_stacks", "_start")

    def __init__(self, stacks: Stacks, number: int) -> None:
        self._stacks = stacks
        self._start = number * _PAGE

    def collect(self) -> int:
        """Have this process, and what it forks, leave its stacks here; return the descriptor that this takes."""
        _libc.fallocate(self._stacks.fd, _KEEP_SIZE | _PUNCH_HOLE, self._start, _PAGE)
        self._forget(0)
        # Opened anew, for a place in the file of its own.
        fd = os.open(f"/proc/self/fd/{self._stacks.fd}", os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(fd, self._start + _HEAD, os.SEEK_SET)
        faulthandler.enable(file=fd, all_threads=True)
        faulthandler.register(DUMP_SIGNAL, file=fd, all_threads=True, chain=False)
        return fd

    def clear(self) -> None:
        """Forget what is there."""
        begin = self._begin()
        self._forget(begin + len(self._read(begin)))

    def read(self) -> str:
        """Return what was left since it was cleared, "" if nothing was."""
        return self._read(self._begin())[:MAX_BYTES].decode(errors="replace").strip()

    def _begin(self) -> int:
        return int.from_bytes(os.pread(self._stacks.fd, _HEAD, self._start), "little")

    def _forget(self, size: int) -> None:
        # A limit on the size of files (RLIMIT_FSIZE) holds here as well: such a child leaves no stacks, and runs.
        with suppress(OSError):
            os.pwrite(self._stacks.fd, size.to_bytes(_HEAD, "little"), self._start)

    def _read(self, begin: int) -> bytes:
        """Return what stands behind so many bytes, up to where nothing was ever written."""
        at = self._start + _HEAD + begin
        try:
            end = os.lseek(self._stacks.fd, at, os.SEEK_HOLE)
        except OSError:  # behind the end of the file
            return b""
        return os.pread(self._stacks.fd, end - at, at).rstrip(b"\0")


def stop() -> None:
    """Leave no stacks any more: a process that a handler has forked is no child of ours."""
    faulthandler.disable()
    faulthandler.unregister(DUMP_SIGNAL)
