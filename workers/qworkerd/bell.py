"""A bell between processes: a non-blocking pipe that one side rings and the other waits on."""

import os
from contextlib import suppress


class Bell:
    """Rings are not counted: whoever hears one looks for everything there is to do."""

    __slots__ = ("_write", "fd")

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """Wake a waiter; does nothing when the pipe is full, for then it is ringing already."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def silence(self) -> None:
        """Take the rings that have come so far."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)

    @property
    def write_fd(self) -> int:
        """The end to ring from a signal, for `signal.set_wakeup_fd`."""
        return self._write
