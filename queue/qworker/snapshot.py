"""What a cluster does at one moment: queues with their load, running jobs, nodes, and the counts of the last hour."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar

import psycopg

from qworker.admin import Admin
from qworker.counts import Counts, total
from qworker.depth import Depths, QueueDepth
from qworker.error_groups import ErrorGroup
from qworker.filters import Filter
from qworker.job import Job, JobState
from qworker.queues import QueuePause
from qworker.search import Order, Page, Search
from qworker.statistics import PERIODS, STEPS, Point, Statistics, drain_seconds
from qworker.status import NodeStatus, WorkerStatus
from qworker.timetable import ScheduleEntry, timetable

T = TypeVar("T")

#: The period of all counts.
PERIOD = "1h"
#: Counts change once a minute. They are read again after this time, and if they took too long, later (seconds).
KEEP, KEEP_SLOW = 10.0, 60.0
#: Maximum number of running or failed jobs, and of groups of errors, that are read.
MAX_JOBS, MAX_GROUPS = 500, 200


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """A queue that holds jobs, of which jobs ended in the last hour, that a live node serves, or that is paused."""

    name: str
    #: The number of its jobs by state; `due` are scheduled jobs whose time has come.
    available: int
    due: int
    scheduled: int
    running: int
    failed: int
    #: How long the oldest available job has waited (seconds); None if there is none.
    oldest_seconds: float | None
    #: False if the numbers are estimates.
    exact: bool
    #: The live nodes that serve it, and the workers of those that are not paused, which may serve others, too.
    nodes: tuple[str, ...]
    workers: int
    paused: QueuePause | None
    #: What was counted in the last hour.
    counts: Counts

    @property
    def drain_seconds(self) -> float | None:
        """How long its workers need for what waits, at the mean run time of the last hour (seconds).

        None if nothing waits, no node claims its jobs, it is paused or no job ran.
        """
        waiting, mean = self.available + self.due, self.counts.run.mean
        if not waiting or not self.workers or self.paused or mean is None:
            return None
        return drain_seconds(waiting, mean, self.workers)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker runs."""

    job: Job
    #: The node and the worker that run it; None if the node has not reported it yet.
    node: NodeStatus | None
    worker: WorkerStatus | None

    @property
    def since(self) -> datetime | None:
        """When its handler was called, or when it was claimed if the node has not reported it."""
        return self.worker.since if self.worker is not None and self.worker.since else self.job.claimed_at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a cluster."""

    #: When it was read, by the database's clock.
    at: datetime
    queues: tuple[QueueActivity, ...]
    nodes: tuple[NodeStatus, ...]
    #: Jobs that workers have done in a second since the snapshot before; None if there is none.
    rate: float | None
    #: What was counted in the last hour, of all queues together.
    counts: Counts
    #: What could not be read, and why.
    notes: tuple[str, ...] = ()

    @property
    def live(self) -> tuple[NodeStatus, ...]:
        """The nodes whose lease is valid."""
        return tuple(node for node in self.nodes if node.alive)

    @property
    def worker_count(self) -> int:
        """The number of workers of these nodes."""
        return sum(node.worker_count for node in self.live)

    @property
    def busy(self) -> int:
        """The number of workers of these nodes that run a job."""
        return sum(node.busy for node in self.live)


class Snapshots:
    """Reads snapshots, each with few statements that do not become slower with the number of jobs.

    The methods must not be called by two threads at the same time.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._pool = admin.pool
        self._search = Search(admin.pool, admin, shared=True)
        self._statistics = Statistics(admin.pool.schema)
        self._depths = Depths(admin.pool.schema)
        self._kept: dict[str, tuple[float, Any]] = {}
        self._slow: set[str] = set()
        self._done: dict[int, tuple[datetime, dict[int | None, int]]] = {}
        self._rates: dict[int, float] = {}

    def snapshot(self) -> Snapshot:
        """Return the state of the cluster."""
        nodes = tuple(self._admin.nodes())
        paused = {pause.queue: pause for pause in self._admin.paused()}
        counts: dict[str, Counts] = self._keep("counts", self._counts, {})
        with self._pool.connection(None) as conn:
            sizes = {size.queue: size for size in self._depths.current(conn)}
        live = [node for node in nodes if node.alive]
        names = sizes.keys() | paused.keys() | counts.keys() | {queue for node in live for queue in node.queues}
        serving: dict[str, list[NodeStatus]] = {}
        for node in live:
            for queue in set(node.queues):
                serving.setdefault(queue, []).append(node)
        return Snapshot(
            at=_now(nodes),
            nodes=nodes,
            rate=self._rate(nodes),
            counts=self._keep("total", lambda: total(counts.values()), Counts()),
            notes=tuple(f"{name} of the last hour: reading them took too long" for name in sorted(self._slow)),
            queues=tuple(
                _activity(name, sizes.get(name), serving.get(name, []), paused.get(name), counts.get(name, Counts()))
                for name in sorted(names)
            ),
        )

    def chart(self) -> list[Point]:
        """Return what was counted in each minute of the last hour; minutes without counts are missing."""
        return self._keep("chart", self._chart, [])

    def depths(self) -> list[QueueDepth]:
        """Return the number of jobs of all queues in each minute of the last hour."""
        return self._keep("depths", self._samples, [])

    def running(self, nodes: Iterable[NodeStatus], wanted: Filter | None = None) -> list[RunningJob]:
        """Return running jobs that match a filter, those that have run for longest first."""
        by_job = {worker.job: (node, worker) for node in nodes for worker in node.workers if worker.job is not None}
        page = self._search.page(
            (wanted or Filter()).limited_to([JobState.RUNNING]), order=Order.OLDEST, limit=MAX_JOBS
        )
        found = [RunningJob(job, *by_job.get(job.id, (None, None))) for job in page.jobs]
        return sorted(found, key=lambda one: (one.since is None, one.since, one.job.id))

    def failed(self, wanted: Filter | None = None) -> Page:
        """Return failed jobs that match a filter, the newest first."""
        return self._search.page((wanted or Filter()).limited_to([JobState.FAILED]), limit=MAX_JOBS)

    def error_groups(self) -> list[ErrorGroup]:
        """Return the groups of errors that are not muted, those that occurred last first."""
        return self._admin.error_groups(states=("open", "resolved"), limit=MAX_GROUPS)

    def schedules(self) -> list[ScheduleEntry]:
        """Return the schedules with their next ticks."""
        return timetable(self._admin.schedules(), None)

    def _counts(self) -> dict[str, Counts]:
        with self._pool.connection(None) as conn:
            return {one.queue: one.counts for one in self._statistics.queues(conn, PERIODS[PERIOD])}

    def _chart(self) -> list[Point]:
        with self._pool.connection(None) as conn:
            return self._statistics.chart(conn, PERIODS[PERIOD], STEPS[PERIOD])

    def _samples(self) -> list[QueueDepth]:
        with self._pool.connection(None) as conn:
            return self._statistics.depths(conn, PERIODS[PERIOD], step=STEPS[PERIOD])

    def _keep(self, name: str, read: Callable[[], T], default: T) -> T:
        """Return what was read lately; the default, and later a note, if it took longer than the timeout."""
        until, found = self._kept.get(name, (0.0, default))
        if monotonic() >= until:
            try:
                found = read()
            except psycopg.errors.QueryCanceled:
                self._slow.add(name)
                self._kept[name] = monotonic() + KEEP_SLOW, found
            else:
                self._slow.discard(name)
                self._kept[name] = monotonic() + KEEP, found
        return found  # type: ignore[no-any-return]

    def _rate(self, nodes: Iterable[NodeStatus]) -> float | None:
        """Return the jobs done in a second, from the numbers that nodes report with each heartbeat."""
        before, self._done = self._done, {
            node.id: (node.heartbeat_at, {worker.pid: worker.jobs_done or 0 for worker in node.workers})
            for node in nodes if node.alive
        }  # fmt: skip
        rates = {}
        for node, (at, done) in self._done.items():
            if node not in before:
                continue
            then, known = before[node]
            seconds = (at - then).total_seconds()
            if seconds > 0:
                jobs = sum(max(0, count - known.get(pid, 0)) for pid, count in done.items())
                rates[node] = jobs / seconds
            elif node in self._rates:
                rates[node] = self._rates[node]
        self._rates = rates
        return sum(rates.values()) if rates else None


def _now(nodes: Iterable[NodeStatus]) -> datetime:
    """Return the time of the database, as far as the heartbeats of nodes tell it."""
    for node in nodes:
        return datetime.fromtimestamp(node.heartbeat_at.timestamp() + node.heartbeat_age, UTC)
    return datetime.now(UTC)


def _activity(
    name: str, size: QueueDepth | None, nodes: list[NodeStatus], paused: QueuePause | None, counts: Counts
) -> QueueActivity:
    return QueueActivity(
        name=name,
        available=size.available if size else 0,
        due=size.due if size else 0,
        scheduled=size.scheduled if size else 0,
        running=size.running if size else 0,
        failed=size.failed if size else 0,
        oldest_seconds=size.oldest if size else None,
        exact=size is None or size.exact,
        nodes=tuple(node.name for node in nodes),
        workers=sum(node.worker_count for node in nodes if not node.paused),
        paused=paused,
        counts=counts,
    )
