"""Read what nodes have counted: counts and percentiles by queue and task, charts, sizes of queues, and their load."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from math import ceil
from typing import Any

from psycopg.errors import QueryCanceled

from qworker.counts import Counts, counts_of
from qworker.db.local import setting
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.depth import INTERVAL, SAMPLED, QueueDepth, from_row

#: The periods for which counts are kept, and the length of a point of their charts (seconds).
PERIODS = {"1h": 3_600.0, "24h": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0}
STEPS = {"1h": 60.0, "24h": 600.0, "7d": 3_600.0, "30d": 14_400.0}
#: Jobs of a queue are counted up to this number; of a longer queue, the number is that of the last sample.
MOST = 10_001
#: The time for counting them (seconds).
WALK_TIMEOUT = 0.12
#: The time before now from which the load is computed (seconds).
RECENT = 360.0
#: The run time of a job of which none is known, and the shortest one that is reckoned with (seconds).
ASSUMED_RUN, SHORTEST_RUN = 1.0, 0.0005
#: The time in which the workers that are wanted would run the jobs that wait (seconds).
TARGET_DRAIN = 60.0


@dataclass(frozen=True, slots=True)
class SeriesCounts:
    """What was counted of a task in a queue, or of a queue."""

    queue: str
    #: None if the counts are those of all tasks.
    task: str | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Point:
    """What was counted in a part of a period."""

    #: When it began.
    at: datetime
    counts: Counts


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version, and when the first node that runs it wrote its counts."""

    version: str
    at: datetime


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What a queue needs, for an autoscaler. Jobs are counted up to MOST; beyond it, the last sample has the number."""

    queue: str
    available: int
    #: Jobs whose time has come, but that are not available yet.
    due: int
    running: int
    #: How long the oldest available job has waited (seconds).
    oldest_seconds: float | None
    #: The workers of nodes that serve the queue and are not paused; they may serve others, too.
    workers: int
    #: The mean run time of the last minutes, or else of the last day, if jobs wait (seconds); None if no job ran.
    mean_run_seconds: float | None
    #: Attempts that ended in a second, in the last minutes.
    rate: float
    #: How many workers would run what waits within the target, and what arrives at the present rate.
    wanted_workers: int
    #: How long the present workers need for what waits (seconds); None if no node serves the queue.
    drain_seconds: float | None
    #: False if the jobs are not counted but estimated, because counting took longer than WALK_TIMEOUT.
    exact: bool = True


class Statistics(Statements):
    """Reads statistics; the methods take the connection to use. Counts are up to two minutes late."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("statistics", schema)

    def tasks(
        self, database: Database, period: float, *, until: datetime | None = None, queue: str | None = None,
        task: str | None = None,
    ) -> list[SeriesCounts]:  # fmt: skip
        """Return the counts of the last `period` seconds by queue and task.

        until: those of the `period` seconds before this time; see `qworker.interval` for the parts that are kept.
        """
        return self._totals(database, period, until, queue, task, by_task=True)

    def queues(
        self, database: Database, period: float, *, until: datetime | None = None, queue: str | None = None
    ) -> list[SeriesCounts]:
        """Return the counts of the last `period` seconds, or of those before `until`, by queue."""
        return self._totals(database, period, until, queue, None, by_task=False)

    def chart(
        self, database: Database, period: float, step: float, *, until: datetime | None = None,
        queue: str | None = None, task: str | None = None,
    ) -> list[Point]:  # fmt: skip
        """Return the counts of the last `period` seconds in parts of `step` seconds; those without counts are missing.

        Counts are kept by minutes for an hour, by ten minutes for a day and by hours for 32 days: see STEPS. until: the
        end of the period, instead of now.
        """
        wanted = {"period": period, "until": until, "step": step, "queue": queue}
        if task is None:
            return self._records(database, "points", _point, **wanted)
        return self._records(database, "points_of_task", _point, task=task, **wanted)

    def depths(
        self, database: Database, period: float, *, until: datetime | None = None, step: float = INTERVAL,
        queue: str = "",
    ) -> list[QueueDepth]:  # fmt: skip
        """Return the sizes of a queue, or of all queues together, one for each `step` seconds of a period up to now.

        until: the end of the period, instead of now. Samples are kept for a week.
        """
        return self._records(database, "depths", from_row, period=period, until=until, step=step, queue=queue)

    def deployments(self, database: Database, period: float, *, until: datetime | None = None) -> list[Deployment]:
        """Return the versions that nodes have begun to run in the last `period` seconds, or in those before `until`."""
        return self._records(database, "deployments", _deployment, period=period, until=until)

    def names(self, database: Database) -> list[tuple[str, str]]:
        """Return the pairs of queue and task that have been counted."""
        return self._rows(database, "names")

    def load(
        self,
        database: Database,
        *,
        queue: str | None = None,
        target_drain: float = TARGET_DRAIN,
        most: int = MOST,
    ) -> list[QueueLoad]:
        """Return the load of each queue. It counts jobs: do not call it more often than once a second.

        A queue that holds no job and that no node serves is returned only if it is named. If counting takes longer than
        WALK_TIMEOUT, because an old snapshot keeps dead entries in the indexes, the jobs are estimated.

        target_drain: the time in which the wanted workers would run the jobs that wait (seconds). most: where counting
        the jobs of a queue ends.
        """
        wanted = {"most": most, "recent": RECENT, "queue": queue, "sampled": SAMPLED}
        try:
            with setting(database, "statement_timeout", f"{WALK_TIMEOUT:g}s"):
                make = partial(_load, target_drain=target_drain, exact=True)
                return self._records(database, "load", make, walk=True, **wanted)
        except QueryCanceled:
            make = partial(_load, target_drain=target_drain, exact=False)
            return self._records(database, "load", make, walk=False, **wanted)

    def _totals(
        self, database: Database, period: float, until: datetime | None, queue: str | None, task: str | None, *,
        by_task: bool,
    ) -> list[SeriesCounts]:  # fmt: skip
        return self._records(
            database, "totals", _series, period=period, until=until, queue=queue, task=task, by_task=by_task
        )


def load_as_dict(load: QueueLoad) -> dict[str, Any]:
    """Return the values of a load by name, without its queue."""
    return {name: value for name, value in asdict(load).items() if name != "queue"}


def _series(*, queue: str, task: str | None, **columns: Any) -> SeriesCounts:
    return SeriesCounts(queue, task, counts_of(**columns))


def _point(*, at: float, **columns: Any) -> Point:
    return Point(datetime.fromtimestamp(at, UTC), counts_of(**columns))


def _deployment(*, version: str, at: float) -> Deployment:
    return Deployment(version, datetime.fromtimestamp(at, UTC))


def _load(
    *, queue: str, available: int, due: int, running: int, oldest: float | None, workers: int, mean_run: float | None,
    rate: float, target_drain: float, exact: bool,
) -> QueueLoad:  # fmt: skip
    run = _reckoned(mean_run)
    work = (available + due) * run
    return QueueLoad(
        queue=queue, available=available, due=due, running=running, oldest_seconds=oldest, workers=workers,
        mean_run_seconds=mean_run, rate=rate, wanted_workers=ceil(work / target_drain + rate * run),
        drain_seconds=drain_seconds(available + due, mean_run, workers), exact=exact,
    )  # fmt: skip


def drain_seconds(jobs: int, mean_run: float | None, workers: int) -> float | None:
    """Return how long workers need for jobs that take `mean_run` seconds; None without workers."""
    return jobs * _reckoned(mean_run) / workers if workers else None


def _reckoned(mean_run: float | None) -> float:
    return max(ASSUMED_RUN if mean_run is None else mean_run, SHORTEST_RUN)
