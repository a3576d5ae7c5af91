"""Reports slow jobs while they run, including those that hold the GIL."""

from math import isfinite
from time import monotonic

from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Role, Slot


class SlowJobs:
    """Checks the workers' slots; each run is reported once."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._reported: dict[int, tuple[int, float]] = {}
        self._log = log.get()

    def log_new(self) -> None:
        """Log the runs that have become slow since the last call."""
        now = monotonic()
        for slot in self._node.table.live(Role.WORKER):
            if slot.words[Slot.PHASE] != Phase.RUNNING or not 0 < slot.floats[Slot.SLOW_AT] < now:
                continue
            running, started = slot.current(), slot.floats[Slot.STARTED]
            if running is None or self._reported.get(slot.index) == (running.id, started):
                continue
            self._reported[slot.index] = (running.id, started)
            timeout_in = slot.floats[Slot.DEADLINE] - self._node.settings.kill_grace - now
            self._log.warning(
                "job.slow", job=running.id, task=self._node.task_name(running.task), attempt=running.attempt,
                worker=slot.child, worker_pid=slot.pid, duration=round(now - started, 3),
                timeout_in=round(timeout_in, 3) if isfinite(timeout_in) else None,
            )  # fmt: skip
