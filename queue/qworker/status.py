"""The status of nodes and schedules, as stored in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


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
    #: What it reports about its workers and schedules.
    state: Mapping[str, Any]


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
