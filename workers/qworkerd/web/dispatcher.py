"""Gives requests to the threads of waitress, and logs when they wait long for one."""

import logging
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Protocol

from waitress.task import ThreadedTaskDispatcher

from qworkerd import log

#: A request that waits this long for a thread is late (seconds), and the time between two events about it (seconds).
LATE, REPORT_INTERVAL = 1.0, 60.0


class Task(Protocol):
    """A request, as waitress gives it to a thread."""

    def service(self) -> None:
        """Answer it."""

    def cancel(self) -> None:
        """End it without an answer, because the server ends."""


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc] # waitress has no types
    """Answers requests by a number of threads.

    waitress warns of each request that finds no idle thread, if only for a moment. Here an operator hears of those that
    have waited for LATE seconds, at once and then at most every REPORT_INTERVAL seconds.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._count, self._clock = threads, clock
        self._reporting = threading.Lock()
        #: Since the last event: the number of requests that got a thread late, and the longest time one has waited.
        self._late, self._longest = 0, 0.0
        self._reported_at = -inf
        self.set_thread_count(threads)

    def add_task(self, task: Task) -> None:
        """Let the next idle thread answer a request."""
        super().add_task(_Waiting(task, self._clock(), self._begin))
        # While all threads hang, only those that come know for how long others have waited.
        try:
            oldest = self.queue[0]
        except IndexError:
            return
        self._report(self._clock() - oldest.since, began=False)

    def _begin(self, waiting: "_Waiting") -> None:
        self._report(self._clock() - waiting.since, began=True)

    def _report(self, waited: float, *, began: bool) -> None:
        if waited < LATE:
            return
        with self._reporting:
            self._late += began
            self._longest = max(self._longest, waited)
            now = self._clock()
            if now < self._reported_at + REPORT_INTERVAL:
                return
            late, longest, self._late, self._longest, self._reported_at = self._late, self._longest, 0, 0.0, now
        log.get().warning(
            "web.busy", threads=self._count, waiting=len(self.queue), late=late, waited=round(longest, 3)
        )  # fmt: skip


class _Waiting:
    """A request in the queue."""

    __slots__ = ("_begin", "_task", "since")

    def __init__(self, task: Task, since: float, begin: Callable[["_Waiting"], Any]) -> None:
        self._task, self._begin = task, begin
        #: When it was queued.
        self.since = since

    def service(self) -> None:
        """Answer it, in a thread."""
        self._begin(self)
        self._task.service()

    def cancel(self) -> None:
        """End it without an answer."""
        self._task.cancel()
