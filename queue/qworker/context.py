"""Gives a handler access to the job it is running: `current_job`."""

import json
import math
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Never, Self

import psycopg

from qworker.errors import QworkerError, Snooze


class RunningJob:
    """One attempt, as the handler sees it. The worker creates it; access it through `current_job`.

    Outside of a handler, each attribute of `current_job` raises QworkerError.
    """

    __slots__ = (
        "_connect", "_connection", "_enqueued_at", "_report", "attempt", "deadline_at", "id", "max_attempts", "queue",
        "started", "task", "trace",
    )  # fmt: skip

    #: The job's id.
    id: int
    #: The task's name.
    task: str
    #: The queue of the job.
    queue: str
    #: The number of this attempt, from 1.
    attempt: int
    #: The number of attempts after which the job fails permanently.
    max_attempts: int
    #: When the handler started (monotonic seconds).
    started: float
    #: When the timeout expires (monotonic seconds); infinity without a timeout.
    deadline_at: float
    #: The traceparent of the attempt; set by `qworker.contrib.tracing` only.
    trace: str
    _enqueued_at: float
    _connect: Callable[[], psycopg.Connection[Any]]
    _connection: psycopg.Connection[Any] | None
    _report: Callable[[int, str], None]

    @classmethod
    def start(
        cls,
        *,
        job: int,
        task: str,
        queue: str,
        attempt: int,
        max_attempts: int,
        enqueued_at: float,
        started: float,
        deadline_at: float,
        connect: Callable[[], psycopg.Connection[Any]],
        report: Callable[[int, str], None],
    ) -> Self:
        """Return the attempt of a job that starts now.

        Not `__init__`: a class that is called with keywords collects them in a dict first, which takes 0.4 us a job.
        """
        self = cls.__new__(cls)
        self.id = job
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.started = started
        self.deadline_at = deadline_at
        self._enqueued_at = enqueued_at
        self._connect = connect
        self._connection = None
        self._report = report
        return self

    def set_trace(self, traceparent: str) -> None:
        """Set the traceparent of the attempt. A worker keeps it where it survives the process."""
        self.trace = traceparent

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued, by the database's clock (UTC)."""
        return datetime.fromtimestamp(self._enqueued_at, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When the timeout expires (UTC); None without a timeout."""
        left = self.time_left()
        return None if left == math.inf else datetime.fromtimestamp(datetime.now(UTC).timestamp() + left, UTC)

    def time_left(self) -> float:
        """Return the seconds until the timeout expires: 0 or more, infinity without a timeout."""
        return max(0.0, self.deadline_at - monotonic())

    def progress(self, fraction: float, text: str = "") -> None:
        """Report the progress of the job (0 to 1), for `qworker jobs show` and `app.job(id).progress`.

        Returns at once. The worker writes the latest report at most once a second. Raises ValueError for a fraction
        below 0 or above 1.
        """
        if not 0 <= fraction <= 1:
            msg = f"progress takes a fraction from 0 to 1, not {fraction!r}"
            raise ValueError(msg)
        self._report(self.id, json.dumps({"fraction": fraction, "text": text}))

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """A pooled connection to qworker's database; the same one throughout the attempt.

        It is opened on first use. Its transaction is committed when the handler returns and rolled back when it raises.
        """
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @property
    def borrowed_connection(self) -> psycopg.Connection[Any] | None:
        """The connection if the handler has used it, or None."""
        return self._connection

    def snooze(self, seconds: float) -> Never:
        """Leave the handler now and run the job again after `seconds`; the attempt is not counted.

        Raises ValueError if `seconds` is negative or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            msg = f"snooze takes a number of seconds, not {seconds!r}"
            raise ValueError(msg)
        raise Snooze(seconds)


#: The job that runs in this context; None outside of handlers.
running: ContextVar[RunningJob | None] = ContextVar("qworker_running", default=None)


class CurrentJob:
    """A proxy for the job that runs in this context; outside of a handler its use raises QworkerError."""

    __slots__ = ()

    def __bool__(self) -> bool:
        """Return whether a job is running in this context."""
        return running.get() is not None

    @property
    def id(self) -> int:
        """The job's id."""
        return _running("id").id

    @property
    def task(self) -> str:
        """The task's name."""
        return _running("task").task

    @property
    def queue(self) -> str:
        """The queue of the job."""
        return _running("queue").queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return _running("attempt").attempt

    @property
    def max_attempts(self) -> int:
        """The number of attempts after which the job fails permanently."""
        return _running("max_attempts").max_attempts

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued, by the database's clock (UTC)."""
        return _running("enqueued_at").enqueued_at

    @property
    def deadline(self) -> datetime | None:
        """When the timeout expires (UTC); None without a timeout."""
        return _running("deadline").deadline

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """See `RunningJob.connection`."""
        return _running("connection").connection

    def time_left(self) -> float:
        """Return the seconds until the timeout expires: 0 or more, infinity without a timeout."""
        return _running("time_left").time_left()

    def progress(self, fraction: float, text: str = "") -> None:
        """See `RunningJob.progress`."""
        _running("progress").progress(fraction, text)

    def snooze(self, seconds: float) -> Never:
        """See `RunningJob.snooze`."""
        _running("snooze").snooze(seconds)


def _running(name: str) -> RunningJob:
    job = running.get()
    if job is None:
        msg = (
            f"current_job.{name}: no job is running in this context; use it inside a handler only (in a test, "
            "qworker.testing.perform(task, ...) runs the handler in a job)"
        )
        raise QworkerError(msg)
    return job


#: The job that runs in this context, for handlers.
current_job = CurrentJob()
