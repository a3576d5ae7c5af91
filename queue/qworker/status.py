"""The status of nodes and schedules, as stored in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from qworker.job import to_datetime


@dataclass(frozen=True, slots=True)
class LastDeath:
    """The last worker of a node that died unexpectedly."""

    #: The number of the worker, and its process id.
    worker: int
    pid: int
    #: Why: "oom", "signal:SEGV", "timeout", "exit:1".
    cause: str
    #: How many workers have died unexpectedly since the node started.
    count: int
    #: When, by the database's clock.
    at: datetime


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker as its node has reported it with its last heartbeat. What a node of another version lacks is None."""

    #: Its number within the node, and its process id.
    number: int | None
    pid: int | None
    #: booting, idle, claiming, running, settling or closing.
    phase: str
    #: The number of jobs that it has run.
    jobs_done: int | None
    #: Its resident memory, measured every five seconds.
    rss_mib: float | None
    #: The job that it runs, and its task; None if it runs none.
    job: int | None
    task: str | None
    #: When the handler was called, and when its timeout interrupts it, by the database's clock.
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Why the workers of a node claim no jobs, or why the ticks of a schedule are skipped."""

    #: When it was paused, by the database's clock.
    at: datetime
    #: Who paused it: user@host, unless the caller named another.
    by: str
    reason: str | None

    def __str__(self) -> str:
        return (
            f"since {self.at.astimezone():%Y-%m-%d %H:%M:%S%z} by {self.by}{f': {self.reason}' if self.reason else ''}"
        )


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A supervisor and its workers, as of its last heartbeat."""

    id: int
    #: Host and process id.
    name: str
    version: str
    queues: tuple[str, ...]
    #: The number of workers it maintains.
    worker_count: int
    #: Whether it is idle and waits for a notification.
    idle: bool
    started_at: datetime
    #: When its last heartbeat was written, by the database's clock.
    heartbeat_at: datetime
    #: Seconds since the last heartbeat.
    heartbeat_age: float
    #: Seconds without a heartbeat after which other nodes may declare it dead.
    lease_seconds: float
    #: What it reports about its workers and schedules. A worker has its number, pid and phase, the number of jobs that
    #: it has done (jobs_done), its resident memory (rss_mib), and for a running job its id (job), its task, the seconds
    #: that it has run (ran) and the seconds to its timeout (left).
    state: Mapping[str, Any]
    #: None if its workers claim jobs. A paused node goes on with what runs, and claims nothing until it is resumed.
    paused: Pause | None = None

    @property
    def alive(self) -> bool:
        """Whether its lease is still valid."""
        return self.heartbeat_age <= self.lease_seconds

    @property
    def workers(self) -> tuple[WorkerStatus, ...]:
        """Its workers, as it has reported them."""
        return tuple(_worker(entry, self.heartbeat_at) for entry in self.reported_workers)

    @property
    def reported_workers(self) -> tuple[Mapping[str, Any], ...]:
        """What it has reported of each worker; a node of another version may report anything."""
        found = self.state.get("workers")
        return tuple(entry for entry in found if isinstance(entry, Mapping)) if isinstance(found, list) else ()

    @property
    def busy(self) -> int:
        """The number of its workers that run a job."""
        return sum(worker.job is not None for worker in self.workers)

    @property
    def last_death(self) -> LastDeath | None:
        """The last worker that died unexpectedly since the node started; None if there was none."""
        try:
            found = self.state["last_death"]
            return LastDeath(
                worker=int(found["worker"]), pid=int(found["pid"]), cause=str(found["cause"]),
                count=int(found["count"]), at=self.heartbeat_at - timedelta(seconds=float(found["ago"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError):  # of another version, or edited by hand
            return None


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule that a node declares or has declared."""

    name: str
    task: str
    expression: str
    timezone: str
    #: The last tick that was enqueued or skipped; None if there was none yet.
    last_tick: datetime | None
    #: The names of the live nodes that declare it. Without one the schedule does not tick.
    nodes: tuple[str, ...] = ()
    #: None if it is not paused. A paused schedule stays so when nodes start and declare it again.
    paused: Pause | None = None
    #: Ticks after this time are enqueued: the last tick, or when it was first declared or last resumed.
    ticks_after: datetime | None = None


def run_times(heartbeat_at: datetime, worker: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return when a reported worker started its job and when the timeout interrupts it, by the database's clock."""
    return _shifted(heartbeat_at, worker.get("ran"), -1), _shifted(heartbeat_at, worker.get("left"), 1)


def _worker(reported: Mapping[str, Any], heartbeat_at: datetime) -> WorkerStatus:
    since, until = run_times(heartbeat_at, reported)
    job, task, rss = reported.get("job"), reported.get("task"), reported.get("rss_mib")
    return WorkerStatus(
        number=_integer(reported.get("worker")), pid=_integer(reported.get("pid")),
        phase=str(reported.get("phase") or ""), jobs_done=_integer(reported.get("jobs_done")),
        rss_mib=rss if isinstance(rss, int | float) and not isinstance(rss, bool) else None,
        job=_integer(job), task=task if isinstance(task, str) else None, since=since, until=until,
    )  # fmt: skip


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shifted(at: datetime, seconds: object, sign: int) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    try:
        return at + sign * timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def pause_of(*, paused_at: float, paused_by: str, pause_reason: str | None) -> Pause:
    """Return the pause of a row, whose time is in seconds since 1970."""
    at = to_datetime(paused_at)
    assert at is not None  # noqa: S101
    return Pause(at, paused_by, pause_reason)
