"""Where log lines go: standard error, whole lines only, never an exception and never a hang."""

import os
import select
import stat
from typing import Final

#: How long to wait for a reader that has stopped reading (seconds): a node must not lose its lease for its log.
PATIENCE: Final = 0.5
#: Longest line for anything but a pipe (bytes); journald cuts at 48 KiB.
LONGEST: Final = 32_768


class Sink:
    """Writes lines to a file descriptor that many processes share; holds no lock, and so needs no care at a fork."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: Lines given up because nobody read them, since the last one that was written.
        self.dropped = 0

    def room(self) -> int:
        """Return how many bytes a line may have.

        Writes of up to PIPE_BUF bytes to a pipe are atomic (pipe(7)); longer ones mix with those of other processes.
        """
        try:
            return select.PIPE_BUF if stat.S_ISFIFO(os.fstat(self.fd).st_mode) else LONGEST
        except OSError:
            return select.PIPE_BUF

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped."""
        try:
            # One of its own: poll() of one object by two threads at once is a RuntimeError.
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            # Once a line was dropped the next ones do not wait at all until the reader is back.
            if not poll.poll(0 if self.dropped else PATIENCE * 1000) or os.write(self.fd, line) < len(line):
                self.dropped += 1
            else:
                self.dropped = 0
        except OSError:
            self.dropped += 1
