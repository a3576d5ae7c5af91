"""The number of jobs that a node may still start (--max-jobs), shared by its workers."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qworkerd.shared.header import Header


class Budget:
    """The count from which workers reserve jobs before they claim them.

    The lock is a POSIX record lock on an anonymous file, which the kernel releases when the process that holds it dies.
    """

    __slots__ = ("_fd", "_header", "_threads", "limited")

    def __init__(self, header: Header, jobs: int | None) -> None:
        self._header = header
        self._threads = threading.Lock()  # a record lock belongs to the process: it does not exclude another thread
        self._fd = os.memfd_create("qworker-budget")
        #: Whether there is a limit at all.
        self.limited = jobs is not None
        header.words[Header.BUDGET] = jobs or 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    @property
    def exhausted(self) -> bool:
        """Whether every job allowed has been started."""
        return self.limited and self._header.words[Header.BUDGET] <= 0

    def reserve(self, wanted: int) -> int:
        """Reserve up to `wanted` jobs; return the number of jobs reserved."""
        if not self.limited:
            return wanted
        with self._locked():
            reserved = max(0, min(wanted, self._header.words[Header.BUDGET]))
            self._header.words[Header.BUDGET] -= reserved
        return reserved

    def restore(self, jobs: int) -> None:
        """Return reserved jobs that were not started."""
        if self.limited and jobs:
            with self._locked():
                self._header.words[Header.BUDGET] += jobs
