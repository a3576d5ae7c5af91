"""The attempts at a job, computed from its times and errors: when each one could start, began and ended, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from qworker.job import UNFINISHED, Job, JobState

#: Longest run time of an attempt that is believed (seconds); a longer one was written by hand.
_LONGEST = 86_400.0 * 3_660


class AttemptEnd(StrEnum):
    """How an attempt ended."""

    #: It has not begun, or not ended.
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: It killed its worker.
    CRASHED = "crashed"
    #: Its node was lost.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a job. All times are those of the database or of the clock of a node."""

    #: From 1; None if it was not stored. A manual retry starts again with 1.
    number: int | None
    end: AttemptEnd
    #: When the job began to wait for it: it was enqueued, or the attempt before ended; None if that is not stored.
    since: datetime | None
    #: When it could start, after a delay or the backoff; None if that is not stored, or if it could start at once.
    due_at: datetime | None
    #: When it began; None if it has not begun, or if that is not stored.
    began_at: datetime | None
    #: When it ended; None if it has not.
    ended_at: datetime | None
    #: Its record in `Job.errors`; None without an error.
    error: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.end not in {AttemptEnd.WAITING, AttemptEnd.RUNNING}

    @property
    def waited(self) -> float | None:
        """Seconds from when it could start until it began; None if one of these is unknown."""
        since = self.due_at or self.since
        return None if since is None or self.began_at is None else max(0.0, (self.began_at - since).total_seconds())

    @property
    def ran(self) -> float | None:
        """Seconds that it ran; None if it has not ended, or if its beginning is unknown."""
        if self.began_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.began_at).total_seconds())


def attempts_of(job: Job) -> list[Attempt]:
    """Return the attempts at a job, oldest first, and the one for which it waits.

    Of attempts before the last, those that failed are known; attempts that were snoozed or interrupted leave no trace.
    Never raises for a row that was edited by hand.
    """
    return list(_attempts(job))


def _attempts(job: Job) -> Iterator[Attempt]:
    since = job.enqueued_at
    failed = [record for record in job.errors if _at(record) is not None]
    for record in failed:
        ended = _at(record)
        began = _began(job, record, ended)
        due = job.run_at if began is not None and began == job.claimed_at else None
        yield Attempt(_number(record), _end(record), since, _later(due, since), began, ended, record)
        since = ended
    last_error = _at(failed[-1]) if failed else None
    if job.state in {JobState.SCHEDULED, JobState.AVAILABLE, JobState.BLOCKED}:
        yield Attempt(job.attempt + 1, AttemptEnd.WAITING, since, _later(job.run_at, since), None, None)
    elif job.claimed_at is not None and (last_error is None or job.claimed_at > last_error):
        yield _last(job, since)


def _last(job: Job, since: datetime | None) -> Attempt:
    """Return the last attempt, which has no error of its own."""
    ends = {
        JobState.RUNNING: AttemptEnd.RUNNING, JobState.COMPLETED: AttemptEnd.COMPLETED,
        JobState.CANCELLED: AttemptEnd.CANCELLED,
    }  # fmt: skip
    end = ends.get(job.state, AttemptEnd.FAILED)
    ended = None if job.state in UNFINISHED else job.finished_at
    return Attempt(job.attempt, end, since, _later(job.run_at, since), job.claimed_at, ended)


def _began(job: Job, record: Mapping[str, Any], ended: datetime | None) -> datetime | None:
    """Return when a failed attempt began: it has stored how long it ran, or it is the last one."""
    ran = record.get("ran")
    newest = bool(job.errors) and record is job.errors[-1] and job.claimed_at is not None
    if ended is None:
        return None
    if newest and job.claimed_at <= ended:  # type: ignore[operator] # not None
        return job.claimed_at
    if isinstance(ran, (int, float)) and not isinstance(ran, bool) and 0 <= ran < _LONGEST:
        return ended - timedelta(seconds=ran)
    return None


def _at(record: Mapping[str, Any]) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(record.get("at")))
    except ValueError:
        return None
    # The earliest and the latest times cannot be converted, and are those of no attempt.
    if not 1970 <= found.year < 9999:  # noqa: PLR2004
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _later(at: datetime | None, since: datetime | None) -> datetime | None:
    return at if at is not None and (since is None or at > since) else None


def _number(record: Mapping[str, Any]) -> int | None:
    number = record.get("attempt")
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _end(record: Mapping[str, Any]) -> AttemptEnd:
    if record.get("type") in {"JobCancelled", "CancelInterrupt"}:
        return AttemptEnd.CANCELLED
    if record.get("type") == "NodeLost":
        return AttemptEnd.LOST
    return AttemptEnd.CRASHED if record.get("phase") else AttemptEnd.FAILED
