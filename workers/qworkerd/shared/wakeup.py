"""Wakes another process through a non-blocking pipe, which one process writes to and the other polls."""

import os
import select
from collections.abc import Collection, Iterable


def readable(fds: Iterable[int], timeout: float) -> list[int]:
    """Wait up to `timeout` seconds until a descriptor is readable; return those that are.

    select() is not used: an application may already have opened more than its 1,024 files.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(timeout * 1000)]


class WakeupPipe:
    """A pipe for wakeups. These are not counted: a process that is woken checks for all kinds of work."""

    __slots__ = ("_write", "fd")

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)
        os.close(self._write)

    def wake(self) -> None:
        """Wake a waiting process. Does nothing if the pipe is full, because a wakeup is then already pending."""
        try:  # noqa: SIM105 - suppress() is slower, and a job is waiting
            os.write(self._write, b"!")
        except BlockingIOError:
            pass

    def clear(self) -> None:
        """Discard the pending wakeups."""
        try:  # noqa: SIM105
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    @property
    def write_fd(self) -> int:
        """The end to write to, for `signal.set_wakeup_fd`."""
        return self._write


def wait(pipes: Collection[WakeupPipe], timeout: float, *fds: int) -> list[int]:
    """Wait until a pipe or another descriptor is readable; clear the pipes, and return what is readable."""
    ready = readable([*(pipe.fd for pipe in pipes), *fds], max(timeout, 0.0))
    for pipe in pipes:
        if pipe.fd in ready:
            pipe.clear()
    return ready
