"""What waits in each queue, how long the present workers need for it, and why nothing moves."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.job import to_datetime
from qworker.queues import QueuePause, queue_pause_of
from qworker.statistics import RECENT, QueueLoad, Statistics, drain_seconds

#: Age from which on a sample is not used: no node has lived for this long (seconds).
STALE = 60.0
#: Jobs of a queue are counted up to this number if no sample is recent.
MOST = 10_001


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """A queue that held jobs when the sizes were sampled, that a live node serves, or that is paused."""

    queue: str
    #: Jobs that can be claimed, and scheduled ones whose time has come but that are not available yet.
    available: int
    due: int
    #: Scheduled jobs, including those that are due, and failed ones; None if only what can run now was counted.
    scheduled: int | None
    running: int
    failed: int | None
    #: How long the oldest available job has waited: the latency of the queue (seconds). None if there is none.
    oldest_seconds: float | None
    #: False if the numbers are estimates from a sample of the table.
    exact: bool
    #: Whether counting has stopped at MOST, so that there may be more jobs.
    capped: bool
    #: The workers of the nodes that claim its jobs; they may serve other queues, too.
    workers: int
    #: The live nodes that serve it, those that are paused as well.
    nodes: tuple[str, ...]
    #: Attempts that ended in a second, and their mean run time (seconds), in the last minutes. If none has ended and
    #: jobs wait, the mean is that of the last day.
    rate: float
    mean_run_seconds: float | None
    #: How long the present workers need for what waits (seconds); None if no node claims its jobs, or if it is paused.
    drain_seconds: float | None
    #: None if workers claim its jobs.
    paused: QueuePause | None

    @property
    def waiting(self) -> int:
        """The jobs that could run now."""
        return self.available + self.due


@dataclass(frozen=True, slots=True)
class BacklogReport:
    """The queues, ordered by name."""

    queues: tuple[QueueBacklog, ...]
    #: When the nodes have sampled the sizes; None if they were counted now, because no node has done so lately.
    sampled_at: datetime | None


class Backlogs(Statements):
    """Reads backlogs; the method takes the connection to use."""

    __slots__ = ("_statistics",)

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("backlogs", schema)
        self._statistics = Statistics(schema)

    def read(self, database: Database, queue: str | None = None) -> BacklogReport:
        """Return the backlog of each queue, or of one. A queue that holds nothing and is not served is missing.

        The numbers are those that the nodes have sampled, at most 15 seconds old, whatever the number of jobs. Without
        a recent sample, the jobs that could run now are counted up to MOST, or estimated if that takes too long.
        """
        ((at, age),) = self._rows(database, "sampled_at")
        found = self._records(database, "sampled", _backlog, queue=queue, recent=RECENT)
        if age is not None and age <= STALE:
            return BacklogReport(tuple(found), to_datetime(at))
        loads = {load.queue: load for load in self._statistics.load(database, queue=queue, most=MOST)}
        known = {backlog.queue: backlog for backlog in found}
        names = sorted(loads.keys() | {b.queue for b in found if b.paused or b.workers})
        return BacklogReport(tuple(_counted(n, known.get(n), loads.get(n)) for n in names), None)


def _backlog(
    *, oldest: float | None, nodes: list[str], mean_run: float | None, paused_at: float | None, paused_by: str,
    pause_reason: str | None, queue: str, workers: int, available: int, due: int, **columns: Any,
) -> QueueBacklog:  # fmt: skip
    paused = None
    if paused_at is not None:
        paused = queue_pause_of(queue=queue, paused_at=paused_at, paused_by=paused_by, pause_reason=pause_reason)
    return QueueBacklog(
        queue=queue, available=available, due=due, oldest_seconds=oldest, workers=workers, nodes=tuple(nodes),
        mean_run_seconds=mean_run, capped=False, paused=paused,
        drain_seconds=None if paused else drain_seconds(available + due, mean_run, workers), **columns,
    )  # fmt: skip


def _counted(queue: str, known: QueueBacklog | None, load: QueueLoad | None) -> QueueBacklog:
    """Return the backlog of a queue whose jobs have just been counted."""
    available, due, running = (load.available, load.due, load.running) if load else (0, 0, 0)
    if known is None:
        known = _backlog(
            queue=queue, oldest=None, nodes=[], mean_run=None, paused_at=None, paused_by="", pause_reason=None,
            workers=0, available=0, due=0, scheduled=None, running=0, failed=None, exact=True, rate=0.0,
        )  # fmt: skip
    drain = None if known.paused else drain_seconds(available + due, known.mean_run_seconds, known.workers)
    return replace(
        known, available=available, due=due, running=running, scheduled=None, failed=None,
        exact=load is None or load.exact, capped=max(available, due, running) >= MOST,
        oldest_seconds=load.oldest_seconds if load else None, drain_seconds=drain,
    )  # fmt: skip
