"""Limits after which a worker process is replaced."""

import os
import random
from math import inf

from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.shared.slots import Slot


class RecycleLimits:
    """The limits on the number of jobs and the memory of a worker; both are disabled by default."""

    def __init__(self, settings: Settings, slot: Slot) -> None:
        self._slot = slot
        jobs = settings.max_jobs_per_worker
        # Up to a tenth lower, so that workers do not all stop at the same time.
        self._quota = inf if jobs is None else max(1, jobs - random.randint(0, jobs // 10))  # noqa: S311
        self._max_rss = inf if settings.max_rss is None else settings.max_rss
        self._log = log.get()

    def reached(self) -> bool:
        """Return whether a limit is reached, and log it."""
        limit = self._reached()
        if limit is not None:
            self._log.info("worker.recycled", limit=limit, jobs_done=self._slot.done, rss_mib=resident())
        return limit is not None

    def _reached(self) -> str | None:
        if self._slot.words[Slot.DONE] >= self._quota:
            return "max-jobs-per-worker"
        if self._max_rss < inf and resident() > self._max_rss:
            return "max-rss"
        return None


def resident() -> int:
    """Return the resident memory of this process (MiB, proc(5) statm)."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once for each batch
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
