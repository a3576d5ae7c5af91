"""What a handler may ask about the job it is running: `current_job`."""

import json
import math
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Never

import psycopg

from qworker.errors import QworkerError, Snooze


class RunningJob:
    """One attempt, from the handler's point of view. Made by the worker; read it through `current_job`."""

    __slots__ = (
        "_connect", "_connection", "_enqueued_at", "_report", "attempt", "deadline_at", "id", "max_attempts", "queue",
        "started", "task",
    )  # fmt: skip

    def __init__(
        self,
        job_id: int,
        task: str,
        queue: str,
        attempt: int,
        max_attempts: int,
        enqueued_at: float,
        started: float,
        deadline_at: float,
        connect: Callable[[], psycopg.Connection[Any]],
        report: Callable[[int, str], None],
    ) -> None:
        #: The job's id.
        self.id = job_id
        #: The task's name.
        self.task = task
        #: The queue it came from.
        self.queue = queue
        #: Which attempt this is, from 1.
        self.attempt = attempt
        #: After how many attempts the job fails for good.
        self.max_attempts = max_attempts
        #: When the handler started (monotonic seconds).
        self.started = started
        #: When the timeout strikes (monotonic seconds); infinite without one.
        self.deadline_at = deadline_at
        self._enqueued_at = enqueued_at
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None
        self._report = report

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued, by the database's clock (UTC)."""
        return datetime.fromtimestamp(self._enqueued_at, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When the timeout strikes (UTC), None without one."""
        left = self.time_left()
        return None if left == math.inf else datetime.fromtimestamp(datetime.now(UTC).timestamp() + left, UTC)

    def time_left(self) -> float:
        """Return the seconds until the timeout strikes: never below 0, infinite without a timeout."""
        return max(0.0, self.deadline_at - monotonic())

    def progress(self, fraction: float, text: str = "") -> None:
        """Report how far the job is (0 to 1), for `qworker jobs show` and `app.job(id).progress`.

        Returns at once; the worker writes the newest report, at most once a second.
        """
        if not 0 <= fraction <= 1:
            msg = f"progress takes a fraction from 0 to 1, not {fraction!r}"
            raise ValueError(msg)
        self._report(self.id, json.dumps({"fraction": fraction, "text": text}))

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """A pooled connection to qworker's database for this job; the same one each time it is asked.

        Opened on first use; work on it is committed when the handler returns and rolled back when it raises.
        """
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @property
    def borrowed_connection(self) -> psycopg.Connection[Any] | None:
        """The connection if the handler has asked for it."""
        return self._connection

    def snooze(self, seconds: float) -> Never:
        """Leave the handler now and run the job again in so many seconds; the attempt is not counted."""
        if not (math.isfinite(seconds) and seconds >= 0):
            msg = f"snooze takes seconds, not {seconds!r}"
            raise ValueError(msg)
        raise Snooze(seconds)


#: The job this context is running; None outside of handlers.
running: ContextVar[RunningJob | None] = ContextVar("qworker_running", default=None)


class CurrentJob:
    """Stands for the job that is running here; using it outside of a handler raises QworkerError."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        job = running.get()
        if job is None:
            msg = f"current_job.{name}: no job is running here; it can be used inside a handler only"
            raise QworkerError(msg)
        return getattr(job, name)

    def __bool__(self) -> bool:
        """Tell whether a job is running here."""
        return running.get() is not None


#: Typed as the job it stands for.
current_job: RunningJob = CurrentJob()  # type: ignore[assignment]
