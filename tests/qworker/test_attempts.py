from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qworker.attempts import AttemptEnd, attempts_of
from qworker.job import Job, JobState

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def error(number: int, ended: float, **more: Any) -> dict[str, Any]:
    return {"at": at(ended).isoformat(timespec="milliseconds"), "attempt": number, "type": "ValueError"} | more


def job(state: JobState, **values: Any) -> Job:
    return Job(id=1, state=state, queue="mail", priority=5, task="shop.send", args={}, enqueued_at=NOON, **values)


def test_a_completed_job_waited_and_ran() -> None:
    (only,) = attempts_of(job(JobState.COMPLETED, attempt=1, claimed_at=at(3), finished_at=at(5)))

    assert (only.number, only.end, only.waited, only.ran) == (1, AttemptEnd.COMPLETED, 3, 2)


def test_the_wait_of_a_scheduled_job_begins_when_it_is_due() -> None:
    (only,) = attempts_of(job(JobState.COMPLETED, attempt=1, run_at=at(60), claimed_at=at(61), finished_at=at(62)))

    assert (only.since, only.due_at, only.waited) == (NOON, at(60), 1)


def test_attempts_that_failed_have_their_times_and_errors() -> None:
    errors = (error(1, 5, ran=2), error(2, 30, ran=0.5))
    first, second, third = attempts_of(
        job(JobState.COMPLETED, attempt=3, errors=errors, run_at=at(90), claimed_at=at(91), finished_at=at(95))
    )

    assert (first.number, first.end, first.since, first.began_at, first.ran) == (1, AttemptEnd.FAILED, NOON, at(3), 2)
    assert (second.since, second.began_at, second.error) == (at(5), at(29.5), errors[1])
    assert (third.end, third.since, third.due_at, third.waited, third.ran) == (
        AttemptEnd.COMPLETED, at(30), at(90), 1, 4
    )  # fmt: skip


def test_the_last_attempt_of_a_failed_job_began_when_it_was_claimed() -> None:
    (only,) = attempts_of(job(JobState.FAILED, attempt=1, errors=(error(1, 5),), claimed_at=at(2), finished_at=at(5)))

    assert (only.end, only.waited, only.ran) == (AttemptEnd.FAILED, 2, 3)


def test_a_job_that_waits_has_an_attempt_that_has_not_begun() -> None:
    first, second = attempts_of(job(JobState.SCHEDULED, attempt=1, errors=(error(1, 5, ran=1),), run_at=at(65)))

    assert (first.ran, second.number, second.end, second.since, second.due_at) == (
        1, 2, AttemptEnd.WAITING, at(5), at(65)
    )  # fmt: skip
    assert second.waited is second.ran is None


def test_a_running_attempt_has_not_ended() -> None:
    first, second = attempts_of(job(JobState.RUNNING, attempt=2, errors=(error(1, 5),), claimed_at=at(9)))

    assert (first.began_at, first.ran) == (None, None)
    assert (second.end, second.began_at, second.ended_at) == (AttemptEnd.RUNNING, at(9), None)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (error(1, 5, type="WorkerDied", phase="running"), AttemptEnd.CRASHED),
        (error(1, 5, type="NodeLost"), AttemptEnd.LOST),
        (error(1, 5, type="CancelInterrupt"), AttemptEnd.CANCELLED),
        (error(1, 5), AttemptEnd.FAILED),
    ],
)
def test_an_attempt_ends_in_different_ways(record: dict[str, Any], expected: AttemptEnd) -> None:
    (only,) = attempts_of(job(JobState.FAILED, attempt=1, errors=(record,), finished_at=at(5)))

    assert only.end is expected


@pytest.mark.parametrize(
    "record",
    [
        {}, {"at": None}, {"at": "yesterday"}, {"at": "9999-12-31T23:59:59-12:00"}, {"at": "0001-01-01T00:00:00+12:00"},
        {"at": "2026-11-27T12:00:05", "ran": "x", "attempt": "y"}, {"at": "2026-11-27T12:00:05", "ran": -1},
        {"at": "2026-11-27T12:00:05", "ran": float("inf")}, {"at": "2026-11-27T12:00:05", "ran": 1e300},
        {"at": "2026-11-27T12:00:05", "ran": True},
    ],
)  # fmt: skip
def test_a_record_that_was_edited_by_hand_raises_nothing(record: dict[str, Any]) -> None:
    found = attempts_of(job(JobState.AVAILABLE, errors=(record, error(2, 9, ran=1))))

    assert found[-1].end is AttemptEnd.WAITING
    assert all(attempt.ran is None for attempt in found[:-2])
