"""The number of jobs that a node may still start (--max-jobs), shared by its workers."""

from qworkerd.shared.header import Header
from qworkerd.shared.lock import ProcessLock


class Budget:
    """The count from which workers reserve jobs before they claim them."""

    __slots__ = ("_header", "_lock", "limited")

    def __init__(self, header: Header, jobs: int | None) -> None:
        self._header = header
        self._lock = ProcessLock("qworker-budget")
        #: Whether there is a limit at all.
        self.limited = jobs is not None
        header.words[Header.BUDGET] = jobs or 0

    @property
    def exhausted(self) -> bool:
        """Whether every job allowed has been started."""
        return self.limited and self._header.words[Header.BUDGET] <= 0

    def reserve(self, wanted: int) -> int:
        """Reserve up to `wanted` jobs; return the number of jobs reserved."""
        if not self.limited:
            return wanted
        with self._lock:
            reserved = max(0, min(wanted, self._header.words[Header.BUDGET]))
            self._header.words[Header.BUDGET] -= reserved
        return reserved

    def restore(self, jobs: int) -> None:
        """Return reserved jobs that were not started."""
        if self.limited and jobs:
            with self._lock:
                self._header.words[Header.BUDGET] += jobs
