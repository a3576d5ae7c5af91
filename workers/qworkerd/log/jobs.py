"""Logs the events of attempts: one function for each event, so that the event has the same fields in all places."""

from collections.abc import Mapping
from typing import Any, Protocol


class Attempt(Protocol):
    """The fields that identify an attempt in each of its events."""

    @property
    def id(self) -> int:
        """The id of the job."""

    @property
    def task(self) -> str:
        """The name of its task."""

    @property
    def queue(self) -> str:
        """The name of its queue."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""


def failed(
    log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float | None, raised: BaseException | None = None
) -> None:
    """Log that a job has failed, and that no attempt follows.

    error: the record that is stored with the job. duration: the run time in seconds, None if it is not known.
    raised: the exception of the handler, None if its process died.
    """
    log.error("job.failed", **_fields(job, error, duration), exc_info=raised)


def retried(
    log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float, max_attempts: int, retry_in: float
) -> None:
    """Log that an attempt has failed, and that the job runs again after `retry_in` seconds."""
    log.warning("job.retried", **_fields(job, error, duration), max_attempts=max_attempts, retry_in=round(retry_in, 3))


def crashed(
    log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float, crashes: int, retry_in: float
) -> None:
    """Log that the worker of a job died, and that the job runs again after `retry_in` seconds."""
    log.warning("job.crashed", **_fields(job, error, duration), crashes=crashes, retry_in=round(retry_in, 3))


def cancelled(log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float) -> None:
    """Log that a job was cancelled while it ran."""
    log.warning("job.cancelled", **_fields(job, error, duration))


def snoozed(log: Any, job: Attempt, *, duration: float, delay: float) -> None:
    """Log that a handler has snoozed its job."""
    log.info("job.snoozed", **_identity(job), duration=round(duration, 3), delay=round(delay, 3))


def interrupted(log: Any, job: Attempt, *, duration: float) -> None:
    """Log that a shutdown has interrupted an attempt, which is not counted."""
    log.warning("job.interrupted", **_identity(job), duration=round(duration, 3))


def summary(error: Mapping[str, Any]) -> str:
    """Return the type and message of an error record as one string."""
    return f"{error['type']}: {error['message'][:500]}"


def _identity(job: Attempt) -> dict[str, Any]:
    return {"job": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt}


def _fields(job: Attempt, error: Mapping[str, Any], duration: float | None) -> dict[str, Any]:
    measured = None if duration is None else round(duration, 3)
    return {**_identity(job), "cause": error.get("cause"), "duration": measured, "error": summary(error)}
