"""What follows for a job whose worker has died."""

from math import inf

import pytest

from qworker import Retry
from qworker.job import JobState
from qworker.recovery import HeldJob
from qworkerd.config.policy import Policy
from qworkerd.outcomes.decide import decide_crash
from qworkerd.outcomes.outcome import AfterDeath, Crashed, Failed, Lost, Terminated
from qworkerd.shared.cause import Cause

POLICY = Policy(Retry(backoff=7.0, jitter=0.0), 300.0, 3, inf)
ERROR = {"type": "WorkerDied"}
CRASHED, LATER, LOST = Crashed(0.0, ERROR), Crashed(7.0, ERROR), Lost(ERROR)


def after(cause: Cause, *, attempt: int = 1, crashes: int = 0, cancelled: bool = False, ran: bool = True) -> AfterDeath:
    job = HeldJob(1, "t", "default", attempt, crashes, False, None, cancelled)
    return decide_crash(job, POLICY, cause, ERROR, ran=ran, hook=True, max_crashes=3)


@pytest.mark.parametrize(
    ("cause", "ran", "outcome"),
    [
        (Cause.SIGNAL, True, CRASHED),
        (Cause.OOM, True, CRASHED),
        (Cause.EXIT, False, CRASHED),
        (Cause.TIMEOUT, True, LATER),
        (Cause.LEASE, True, LOST),
        (Cause.SUPERVISOR_LOST, False, LOST),
        (Cause.STALLED, True, LOST),
        (Cause.STALLED, False, CRASHED),
    ],
)
def test_the_cause_decides_what_is_counted_and_whether_the_job_waits(
    cause: Cause, ran: bool, outcome: AfterDeath
) -> None:
    assert after(cause, ran=ran) == outcome


@pytest.mark.parametrize(("attempt", "crashes"), [(3, 0), (1, 2)])
def test_at_either_limit_the_job_fails_but_not_by_a_loss(attempt: int, crashes: int) -> None:
    assert after(Cause.SIGNAL, attempt=attempt, crashes=crashes) == Failed(ERROR, hook=True, crashes=1)
    assert after(Cause.LEASE, attempt=attempt, crashes=crashes) == LOST


@pytest.mark.parametrize("cause", [Cause.SIGNAL, Cause.TIMEOUT, Cause.LEASE])
def test_a_job_to_be_cancelled_ends_with_its_worker(cause: Cause) -> None:
    assert after(cause, cancelled=True) == Terminated(JobState.CANCELLED, 0.0, ERROR)
