"""Writes log lines to standard error: only whole lines, without raising errors and without blocking."""

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

#: Seconds to wait for a reader that has stopped reading: logging must not delay the renewal of the lease for long.
WRITE_TIMEOUT: Final = 0.5
#: Maximum length of a line if it is not written to a pipe (bytes); journald splits lines at 48 KiB.
MAX_LINE: Final = 32_768


class Writer:
    """Writes lines to a file descriptor shared by many processes. It holds no lock, so a fork is safe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: Number of lines dropped since the last one that was written, because nobody read them.
        self.dropped = 0

    def max_line(self) -> int:
        """Return the maximum length of a line (bytes).

        Writes of up to PIPE_BUF bytes to a pipe are atomic (pipe(7)). Longer ones may be split.
        """
        try:
            return select.PIPE_BUF if stat.S_ISFIFO(os.fstat(self.fd).st_mode) else MAX_LINE
        except OSError:
            return select.PIPE_BUF

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped."""
        try:
            with self._open_nonblocking() as end:
                written = self._send(end, line)
        except OSError:
            written = 0
        self.dropped = 0 if written == len(line) else self.dropped + 1

    def _send(self, end: int, line: bytes) -> int:
        """Write a line before the timeout; return the number of bytes written."""
        # A new object: poll() of one object by two threads at once raises RuntimeError.
        poll = select.poll()
        poll.register(end, select.POLLOUT)
        # After a line was dropped, the following ones are written only if the reader reads again; they do not wait.
        left = 0.0 if self.dropped else WRITE_TIMEOUT
        until = monotonic() + left
        while poll.poll(left * 1000):
            try:
                return os.write(end, line)
            except BlockingIOError:  # another process has filled the pipe
                left = max(0.0, until - monotonic())
                if not left:
                    break
        return 0

    @contextmanager
    def _open_nonblocking(self) -> Iterator[int]:
        """Yield a descriptor of the same pipe that does not block; `fd` itself if it is not a pipe.

        If poll() reports the same free space to two processes, one of them would block in write() until the pipe is
        read. O_NONBLOCK on `fd` would also apply to the processes that share it: the shell, the subprocesses of jobs.
        """
        try:
            piped = stat.S_ISFIFO(os.fstat(self.fd).st_mode)
            end = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC) if piped else self.fd
        except OSError:  # no /proc, no free descriptor, or a pipe that belongs to another account
            end = self.fd
        try:
            yield end
        finally:
            if end != self.fd:
                os.close(end)
