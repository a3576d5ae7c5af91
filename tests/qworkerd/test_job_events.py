"""The events that follow an attempt: each has one shape, whichever process logs it."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from qworker import App
from qworker.recovery import LostJob
from qworkerd.log import jobs
from qworkerd.outcomes.reports import MAX_REPORTS, Failure, Reporter
from qworkerd.scheduler.rescue import NODE_LOST

Logged = list[tuple[str, dict[str, Any]]]
IDENTITY = {"job", "task", "queue", "attempt"}
JOB = LostJob(7, "send", "mail", 3, "failed")
ERROR = {"type": "ValueError", "message": "x" * 600, "cause": None}


def logger(logged: Logged) -> Any:
    def note(event: str, **facts: Any) -> None:
        logged.append((event, facts))

    return SimpleNamespace(info=note, warning=note, error=note)


def test_every_event_names_the_job_its_task_its_queue_and_the_attempt() -> None:
    logged: Logged = []
    log = logger(logged)
    jobs.failed(log, JOB, ERROR, duration=None)
    jobs.retried(log, JOB, ERROR, duration=1.0, max_attempts=5, retry_in=2.0)
    jobs.crashed(log, JOB, ERROR, duration=1.0, crashes=1, retry_in=2.0)
    jobs.cancelled(log, JOB, ERROR, duration=1.0)
    jobs.snoozed(log, JOB, duration=1.0, delay=2.0)
    jobs.interrupted(log, JOB, duration=1.0)
    assert [event for event, _ in logged] == [
        "job.failed", "job.retried", "job.crashed", "job.cancelled", "job.snoozed", "job.interrupted",
    ]  # fmt: skip
    for event, facts in logged:
        assert {key: facts[key] for key in IDENTITY} == {"job": 7, "task": "send", "queue": "mail", "attempt": 3}, event
    assert len(logged[0][1]["error"]) < 520


@pytest.mark.parametrize(("state", "events"), [("failed", ["job.failed"]), ("available", [])])
def test_a_job_that_was_lost_too_often_is_logged_as_failed(
    monkeypatch: pytest.MonkeyPatch, state: str, events: list[str]
) -> None:
    """It was reported to the application's hooks, and stood nowhere in the node's own log."""
    logged: Logged = []
    reporter = Reporter(App())
    monkeypatch.setattr(reporter, "_log", logger(logged))
    reporter.submit_losses([LostJob(7, "send", "mail", 2, state)], NODE_LOST)
    reporter.close(5)
    assert [event for event, _ in logged if event.startswith("job.")] == events
    for _, facts in logged:
        assert (facts["attempt"], facts["cause"], facts["duration"]) == (3, "node-lost", None)


def test_reports_from_two_threads_are_sent_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread submits failures, the acknowledger the jobs that have ended."""
    app = App()
    app.on_end(print)
    reporter = Reporter(app)
    start, other = reporter._start, threading.Thread(target=reporter.ended, args=([8],))
    started: list[str] = []

    def start_while_another_submits() -> None:
        started.append(threading.current_thread().name)
        if len(started) == 1:
            other.start()
            other.join(0.2)  # which waits until the thread of reports has been started
        start()

    monkeypatch.setattr(reporter, "_start", start_while_another_submits)
    monkeypatch.setattr(reporter, "_to_end_hooks", list)
    reporter.ended([7])
    other.join(5)
    reporter.close(5)
    assert started == [threading.current_thread().name]


def test_what_jobs_of_lost_claims_have_raised_is_not_kept_for_ever() -> None:
    app = App()
    app.on_end(print)
    reporter = Reporter(app)
    for number in range(MAX_REPORTS + 10):
        reporter._keep_raised(
            Failure(job=number, task="t", queue="q", attempt=1, error=ERROR, final=True, raised=ValueError())
        )
    assert list(reporter._raised) == list(range(10, MAX_REPORTS + 10))
