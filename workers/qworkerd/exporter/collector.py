"""Computes the metrics of a node from its shared memory, when they are asked for."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from operator import add
from pathlib import Path
from time import monotonic
from typing import Any

from prometheus_client.core import InfoMetricFamily, Metric

from qworkerd import __version__
from qworkerd.exporter.named import named
from qworkerd.metrics import families
from qworkerd.metrics.cluster import cluster
from qworkerd.metrics.names import METRICS
from qworkerd.shared.claim import Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.series import FIRST, OTHER, OTHER_NAMES, PROCESS
from qworkerd.shared.slots import Phase, Role, Slot
from qworkerd.shared.tally import DEATHS, RUN_BUCKETS, WAIT_BUCKETS, Counter, ProcessCounter

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
#: What is older is not exported: the node does not reach the database, and its numbers may be wrong (seconds).
STALE_AFTER = 60.0
#: The lease is renewed once a second; without a renewal for this long, the database is considered down (seconds).
DATABASE_DOWN_AFTER = 5.0

#: The outcomes of jobs and attempts, and the counters that are added for them.
JOBS = {
    "completed": (Counter.SUCCEEDED,), "failed": (Counter.FAILED,), "cancelled": (Counter.CANCELLED,),
    "discarded": (Counter.DISCARDED,),
}  # fmt: skip
ATTEMPTS = {
    "succeeded": (Counter.SUCCEEDED,), "retried": (Counter.RETRIED,), "failed": (Counter.RAISED,),
    "timeout": (Counter.TIMED_OUT,), "crashed": (Counter.OOM, Counter.SIGNALLED, Counter.EXITED),
    "lost": (Counter.STALLED, Counter.LEASE_LOST, Counter.SUPERVISOR_LOST, Counter.NODE_LOST),
    "interrupted": (Counter.INTERRUPTED,), "snoozed": (Counter.SNOOZED,), "unknown_task": (Counter.UNKNOWN_TASK,),
    "cancelled": (Counter.CANCELLED_ATTEMPTS,),
}  # fmt: skip
#: Outcomes that are exported although they are 0, so that the first one is an increase.
ALWAYS = {"completed", "succeeded", "failed"}


class Collector:
    """A collector of prometheus_client."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        #: The labels of jobs that are exported, and those that are not.
        self._labels = node.settings.metrics_labels.split(",")
        self._omitted = {"queue", "task"}.difference(self._labels)
        #: The processor time that was exported last (seconds).
        self._processor = 0.0

    def describe(self) -> list[Metric]:
        """Return nothing: the registry need not collect to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        build = InfoMetricFamily("qworker_build", METRICS["qworker_build"].help)
        build.add_metric(
            [], {"version": __version__, "python": platform.python_version(), "schema": self._node.settings.schema}
        )
        yield build
        yield from self._series()
        yield from self._workers()
        yield from self._process()
        yield from self._lease()
        yield from named(self._node.counters.read())
        yield from self._cluster()

    def _cluster(self) -> Iterator[Metric]:
        """Yield what the scheduler has read of the cluster; nothing if it has not done so recently."""
        found: dict[str, Any] = {}
        with suppress(ValueError):
            found = json.loads(self._node.board.read())
        if found and boottime() - found["read_at"] <= STALE_AFTER:
            yield from cluster(found, self._node.settings.schema)

    def _names(self, queue: str, task: str) -> tuple[str, ...]:
        """Return the values of the labels that are exported."""
        return tuple({"queue": queue, "task": task}[label] for label in self._labels)

    def _series(self) -> Iterator[Metric]:
        tally, series = self._node.tally, dict[tuple[str, ...], list[int]]()
        for number, pair in enumerate([OTHER_NAMES, *tally.numbers.names()], OTHER):
            cells = tally.read(number)
            if any(cells):
                names = self._names(*pair)
                series[names] = list(map(add, series[names], cells)) if names in series else cells
        jobs, attempts = (
            families.counter("qworker_jobs", self._omitted),
            families.counter("qworker_attempts", self._omitted),
        )
        run = families.histogram("qworker_job_run_seconds", self._omitted)
        wait = families.histogram("qworker_job_wait_seconds", self._omitted)
        for names, cells in series.items():
            for family, outcomes in ((jobs, JOBS), (attempts, ATTEMPTS)):
                for outcome, counters in outcomes.items():
                    number = sum(cells[counter] for counter in counters)
                    if number or outcome in ALWAYS:
                        family.add_metric([*names, outcome], number)
            families.add_histogram(run, names, cells, RUN_BUCKETS, cells[Counter.RUN])
            families.add_histogram(wait, names, cells, WAIT_BUCKETS, cells[Counter.WAIT])
        yield from (jobs, attempts, run, wait)

    def _workers(self) -> Iterator[Metric]:
        phases = dict.fromkeys((phase.name.lower() for phase in Phase), 0)
        started: dict[tuple[str, ...], list[float]] = {}
        # Read before the living ones: a worker that ends meanwhile must not be added twice.
        cells = self._node.tally.read(PROCESS)
        unstored, memory, processor = 0, [0], cells[ProcessCounter.CPU] / families.MICRO
        pairs = dict(enumerate(self._node.tally.numbers.names(), FIRST))
        for slot in self._node.table.live(Role.WORKER):
            phases[Phase(slot.phase).name.lower()] += 1
            if slot.words[Slot.PHASE] == Phase.RUNNING and (job := slot.current()) is not None:
                # The task of a series is unknown if the node counts too many.
                queue, task = pairs.get(job.series, ("(other)", self._node.task_name(job.task)))
                started.setdefault(self._names(queue, task), []).append(slot.floats[Slot.STARTED])
            entries = (entry for claim in slot.open_claims() for entry in claim.entries())
            unstored += sum(entry.status in (Status.SUCCEEDED, Status.DONE) for entry in entries)
            resident, used = _usage(slot.pid)
            memory.append(resident)
            processor += used
        yield families.gauges("qworker_workers", phases)
        running = families.gauge("qworker_jobs_running", self._omitted)
        longest = families.gauge("qworker_job_running_seconds_max", self._omitted)
        for names, times in started.items():
            running.add_metric(names, len(times))
            longest.add_metric(names, max(monotonic() - min(times), 0.0))
        yield from (running, longest)
        yield families.gauges("qworker_worker_resident_memory_bytes", {"sum": sum(memory), "max": max(memory)})
        yield families.number("qworker_unacknowledged_jobs", unstored)
        deaths = families.counter("qworker_worker_deaths")
        for number, cause in enumerate(DEATHS):
            deaths.add_metric([cause], cells[ProcessCounter.DEATHS + number])
        yield deaths
        total = families.counter("qworker_worker_cpu_seconds")
        # A worker that has just been reaped is missing until the supervisor has counted it: a counter that falls would
        # be a restart to Prometheus, and all of its value an increase.
        self._processor = max(self._processor, processor)
        total.add_metric([], self._processor)
        yield total

    def _process(self) -> Iterator[Metric]:
        cells = self._node.tally.read(PROCESS)
        claims, refused = families.counter("qworker_claims"), families.counter("qworker_refused_writes")
        claims.add_metric(["some"], cells[ProcessCounter.CLAIMS])
        claims.add_metric(["none"], cells[ProcessCounter.EMPTY_CLAIMS])
        refused.add_metric([], cells[ProcessCounter.REFUSED])
        lost = families.counter("qworker_nodes_lost")
        lost.add_metric([], cells[ProcessCounter.NODES_LOST])
        claim, acknowledge = (
            families.histogram("qworker_claim_seconds"),
            families.histogram("qworker_acknowledge_seconds"),
        )
        families.add_histogram(claim, [], cells, RUN_BUCKETS, cells[ProcessCounter.CLAIM_TIME])
        families.add_histogram(acknowledge, [], cells, WAIT_BUCKETS, cells[ProcessCounter.ACKNOWLEDGE_TIME])
        yield from (claims, refused, lost, claim, acknowledge)

    def _lease(self) -> Iterator[Metric]:
        header, timeout = self._node.table.header, self._node.settings.lease_timeout
        left = max(header.lease_until - boottime(), 0.0) if header.node else 0.0
        yield families.number("qworker_lease_remaining_seconds", left)
        # A short lease ends before.
        up = left > max(timeout - min(2.0, timeout / 5) - DATABASE_DOWN_AFTER, 0.0)
        yield families.number("qworker_database_up", float(up))
        yield families.number("qworker_node_paused", float(self._node.paused.node))


def _usage(pid: int) -> tuple[int, float]:
    """Return the resident memory (bytes) and the processor time (seconds) of a process; 0 if it is gone."""
    with suppress(OSError, ValueError, IndexError):
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return resident, (int(fields[11]) + int(fields[12])) / _TICKS
    return 0, 0.0
