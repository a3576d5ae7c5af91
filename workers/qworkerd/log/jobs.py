"""One function for each event that follows an attempt, so that an event has one shape wherever it comes from."""

from collections.abc import Mapping
from typing import Any, Protocol


class Attempt(Protocol):
    """What identifies an attempt in each of its events."""

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
    """Log that a job has failed for good.

    error: the record that is stored with the job. duration: seconds, None if nobody has measured it.
    raised: the exception of the handler, if its process has lived to catch it.
    """
    log.error("job.failed", **_facts(job, error, duration), exc_info=raised)


def retried(
    log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float, max_attempts: int, retry_in: float
) -> None:
    """Log that an attempt has failed, and that the job runs again after `retry_in` seconds."""
    log.warning("job.retried", **_facts(job, error, duration), max_attempts=max_attempts, retry_in=round(retry_in, 3))


def crashed(
    log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float, crashes: int, retry_in: float
) -> None:
    """Log that the worker of a job died, and that the job runs again after `retry_in` seconds."""
    log.warning("job.crashed", **_facts(job, error, duration), crashes=crashes, retry_in=round(retry_in, 3))


def cancelled(log: Any, job: Attempt, error: Mapping[str, Any], *, duration: float) -> None:
    """Log that a job was cancelled while it ran."""
    log.warning("job.cancelled", **_facts(job, error, duration))


def snoozed(log: Any, job: Attempt, *, duration: float, again_in: float) -> None:
    """Log that a handler has put its job off."""
    log.info("job.snoozed", **_identity(job), duration=round(duration, 3), again_in=round(again_in, 3))


def interrupted(log: Any, job: Attempt, *, duration: float) -> None:
    """Log that a shutdown has interrupted an attempt, which is not counted."""
    log.warning("job.interrupted", **_identity(job), duration=round(duration, 3))


def summary(error: Mapping[str, Any]) -> str:
    """Return the type and message of an error record as one string."""
    return f"{error['type']}: {error['message'][:500]}"


def _identity(job: Attempt) -> dict[str, Any]:
    return {"job": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt}


def _facts(job: Attempt, error: Mapping[str, Any], duration: float | None) -> dict[str, Any]:
    measured = None if duration is None else round(duration, 3)
    return {**_identity(job), "cause": error.get("cause"), "duration": measured, "error": summary(error)}
