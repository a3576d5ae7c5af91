"""A lock between the processes of a node, which the kernel releases when the process that holds it dies."""

import fcntl
import os
import threading
from types import TracebackType


class ProcessLock:
    """A POSIX record lock on an anonymous file. It excludes the other threads of the process, too."""

    __slots__ = ("_fd", "_threads")

    def __init__(self, name: str) -> None:
        self._threads = threading.Lock()  # a record lock belongs to the process: it does not exclude another thread
        self._fd = os.memfd_create(name)

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()
