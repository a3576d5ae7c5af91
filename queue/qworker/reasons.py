"""The reasons why a job does not run: each with its evidence and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from qworker.job import Job


class Cause(StrEnum):
    """The kind of a reason."""

    # The job has ended.
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DISCARDED = "discarded"
    FAILED = "failed"
    # It runs.
    RUNNING = "running"
    CANCEL_REQUESTED = "cancel_requested"
    NODE_SILENT = "node_silent"
    NODE_GONE = "node_gone"
    # It waits.
    NOT_DUE = "not_due"
    RETRYING = "retrying"
    NOT_PROMOTED = "not_promoted"
    PAUSED = "paused"
    NODES_PAUSED = "nodes_paused"
    NO_NODE = "no_node"
    UNSERVED = "unserved"
    UNKNOWN_TASK = "unknown_task"
    LOCKED = "locked"
    READ_ONLY = "read_only"
    BUSY = "busy"
    STARTING = "starting"
    BLOCKED = "blocked"
    # What else depends on it.
    HOLDS_KEY = "holds_key"


#: The causes that do not end by themselves.
NEEDS_ACTION = frozenset({
    Cause.FAILED, Cause.NODE_GONE, Cause.NODE_SILENT, Cause.NOT_PROMOTED, Cause.PAUSED, Cause.NODES_PAUSED,
    Cause.NO_NODE, Cause.UNSERVED, Cause.UNKNOWN_TASK, Cause.LOCKED, Cause.READ_ONLY,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a job is where it is."""

    cause: Cause
    #: The reason, with the values, in one line.
    summary: str
    #: What it follows from; times are in seconds since 1970.
    evidence: Mapping[str, Any]
    #: What can be done, as a line for a shell or psql; empty if nothing needs to be done, or no line does it.
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The position of an available job in its queue."""

    #: The number of available jobs of its queue that are claimed before it.
    ahead: int
    #: Whether there may be more: the count has a limit.
    capped: bool
    #: Queues with available jobs that the nodes serve before this one.
    queues_before: tuple[str, ...]
    #: Attempts at jobs of its queue that ended each second in the last minutes; None if none did.
    rate: float | None
    #: Seconds until it is expected to start at this rate; None if that is unknown.
    expected_start: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not run, or how it ended; the most important reason first."""

    job: Job
    reasons: tuple[Reason, ...]
    #: None unless the job is available.
    position: QueuePosition | None = None

    @property
    def needs_action(self) -> bool:
        """Whether the job does not run unless something is done."""
        return any(reason.cause in NEEDS_ACTION for reason in self.reasons)
