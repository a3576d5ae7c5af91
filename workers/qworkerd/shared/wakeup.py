"""A bell between processes: a non-blocking pipe that one side rings and the other waits on."""

import os
import select
from collections.abc import Iterable


def readable(fds: Iterable[int], timeout: float) -> list[int]:
    """Wait until one of the descriptors has something to read, or so many seconds; return those that have.

    Not select(): an application may have opened more than its 1,024 files before.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(timeout * 1000)]


class WakeupPipe:
    """Rings are not counted: whoever hears one looks for everything there is to do."""

    __slots__ = ("_write", "fd")

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """Wake a waiter; does nothing when the pipe is full, for then it is ringing already."""
        try:  # noqa: SIM105 - somebody waits for each of these microseconds
            os.write(self._write, b"!")
        except BlockingIOError:
            pass

    def clear(self) -> None:
        """Take the rings that have come so far."""
        try:  # noqa: SIM105
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    @property
    def write_fd(self) -> int:
        """The end to ring from a signal, for `signal.set_wakeup_fd`."""
        return self._write
