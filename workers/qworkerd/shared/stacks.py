"""Stack dumps of children that are killed or crash: written by faulthandler's C code, read after their death."""

import ctypes
import faulthandler
import os
import re
import signal
from contextlib import suppress

#: The signal that makes a child dump its stacks.
DUMP_SIGNAL = signal.SIGRTMIN

#: How the dump of a crash begins.
_CRASH = b"Fatal Python error: "
#: How the stack of a thread begins. The current one runs the handler, or has crashed.
_THREAD = re.compile(rb"^(?=(?:Current thread|Thread) 0x)", re.MULTILINE)
_CURRENT = b"Current thread 0x"
#: Maximum size kept (bytes). The current thread comes first.
MAX_BYTES = 8_192
#: Distance of two children's areas (bytes), larger than the longest dump. Unwritten parts take no memory.
_PAGE = 1 << 26
#: An area starts with the number of its bytes that are out of date.
_HEADER = 8
_KEEP_SIZE, _PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Stacks:
    """An in-memory file with an area for each child, so that one descriptor is enough.

    faulthandler writes to it without the GIL, on DUMP_SIGNAL and on SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL. It
    works even if C code does not return or has damaged the interpreter's state.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("qworker-stacks", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)


class StackDump:
    """The area of one child. Clearing it does not move the write position: the child appends."""

    __slots__ = ("_stacks", "_start")

    def __init__(self, stacks: Stacks, number: int) -> None:
        self._stacks = stacks
        self._start = number * _PAGE

    def attach(self) -> int:
        """Dump the stacks of this process and its children here; return the descriptor that is used for it."""
        _libc.fallocate(self._stacks.fd, _KEEP_SIZE | _PUNCH_HOLE, self._start, _PAGE)
        self._skip(0)
        # Opened again, because each child needs its own file position.
        fd = os.open(f"/proc/self/fd/{self._stacks.fd}", os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(fd, self._start + _HEADER, os.SEEK_SET)
        faulthandler.enable(file=fd, all_threads=True)
        faulthandler.register(DUMP_SIGNAL, file=fd, all_threads=True, chain=False)
        return fd

    def clear(self) -> None:
        """Discard the contents."""
        start = self._read_start()
        self._skip(start + len(self._read(start)))

    def read(self) -> str:
        """Return what was written since the last clear, or an empty string; of a crash, its dump alone."""
        found = self._read(self._read_start())
        return _shortened(found[max(found.rfind(_CRASH), 0) :])

    def end(self) -> int:
        """Return where the next dump will begin, for `read_from`."""
        start = self._read_start()
        return start + len(self._read(start))

    def read_from(self, offset: int) -> str:
        """Return what was written behind an offset, or an empty string."""
        return _shortened(self._read(offset))

    def _read_start(self) -> int:
        return int.from_bytes(os.pread(self._stacks.fd, _HEADER, self._start), "little")

    def _skip(self, size: int) -> None:
        # A limit on file sizes (RLIMIT_FSIZE) applies here too. Such a child runs without stack dumps.
        with suppress(OSError):
            os.pwrite(self._stacks.fd, size.to_bytes(_HEADER, "little"), self._start)

    def _read(self, start: int) -> bytes:
        """Return the contents from an offset up to the first hole."""
        at = self._start + _HEADER + start
        try:
            end = os.lseek(self._stacks.fd, at, os.SEEK_HOLE)
        except OSError:  # beyond the end of the file
            return b""
        return os.pread(self._stacks.fd, end - at, at).rstrip(b"\0")


def _shortened(dump: bytes) -> str:
    """Return a dump of limited size, with the current thread before the others: faulthandler writes the youngest first.

    A handler runs in the oldest thread, whose stack would be missing if there are many others.
    """
    head, *threads = _THREAD.split(dump)
    threads.sort(key=lambda stack: not stack.startswith(_CURRENT))
    ordered = head + b"\n\n".join(stack.rstrip() for stack in threads)
    return ordered[:MAX_BYTES].decode(errors="replace").strip()


def stop_dumping() -> None:
    """Stop dumping stacks; called in a process that a handler has forked, which is not a child of the node."""
    faulthandler.disable()
    faulthandler.unregister(DUMP_SIGNAL)
