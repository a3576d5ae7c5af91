"""Write log lines to standard error: whole lines only, without exceptions and without blocking."""

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

#: How long to wait for a reader that has stopped reading (seconds): a log must not cost the node its lease.
WRITE_TIMEOUT: Final = 0.5
#: Longest line for anything but a pipe (bytes); journald cuts at 48 KiB.
MAX_LINE: Final = 32_768


class Writer:
    """Writes lines to a file descriptor shared by many processes. It holds no lock, so a fork is safe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: Lines dropped since the last one that was written, because they were not read.
        self.dropped = 0

    def room(self) -> int:
        """Return the maximum length of a line (bytes).

        Writes of up to PIPE_BUF bytes to a pipe are atomic (pipe(7)); longer ones mix with those of other processes.
        """
        try:
            return select.PIPE_BUF if stat.S_ISFIFO(os.fstat(self.fd).st_mode) else MAX_LINE
        except OSError:
            return select.PIPE_BUF

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped."""
        try:
            with self._end() as end:
                written = self._send(end, line)
        except OSError:
            written = 0
        self.dropped = 0 if written == len(line) else self.dropped + 1

    def _send(self, end: int, line: bytes) -> int:
        """Write a line before the timeout; return the number of bytes written."""
        # A new object: poll() of one object by two threads at once raises RuntimeError.
        poll = select.poll()
        poll.register(end, select.POLLOUT)
        # After a line was dropped the next ones do not wait until the reader is back.
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
    def _end(self) -> Iterator[int]:
        """Give an end of the pipe that does not block; for anything else, the descriptor itself.

        If poll() reports the same remaining space to two processes, one would wait in write() for a reader that may
        never come back. O_NONBLOCK on `fd` would be for all who share it: the shell, the programs of jobs.
        """
        try:
            piped = stat.S_ISFIFO(os.fstat(self.fd).st_mode)
            end = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC) if piped else self.fd
        except OSError:  # no /proc, no descriptor left, or a pipe made under another account
            end = self.fd
        try:
            yield end
        finally:
            if end != self.fd:
                os.close(end)
