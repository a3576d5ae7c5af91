"""Handlers and callers without a database."""

import asyncio
from datetime import date
from typing import Any, assert_type

import pytest

from qworker import App, InvalidOperation, InvalidPayload, Job, JobState, QworkerError, Task, current_job
from qworker.context import running
from qworker.errors import Snooze, TimeoutInterrupt
from qworker.testing import MockQueue, perform


@pytest.fixture
def offline() -> App:
    return App("host=/nonexistent")


def test_a_handler_runs_as_in_a_worker(offline: App) -> None:
    @offline.middleware
    def around(job: Any, call_next: Any) -> Any:
        return [job.id, call_next()]

    @offline.task(name="t", retry=5)
    def task(value: Any) -> Any:
        return [value, current_job.attempt, current_job.max_attempts, current_job.task, current_job.queue]

    assert perform(task, (1, 2), attempt=3, job_id=7) == [7, [[1, 2], 3, 5, "t", "default"]]
    assert running.get() is None


def test_a_handler_that_is_called_without_a_job_is_led_to_perform(offline: App) -> None:
    @offline.task(name="t")
    def task() -> int:
        return current_job.attempt

    with pytest.raises(QworkerError, match=r"no job is running.*in a test, qworker\.testing\.perform\(task, \.\.\.\)"):
        task()
    assert perform(task, attempt=2) == 2


def test_its_exception_is_raised_as_it_is(offline: App) -> None:
    @offline.task(name="t", timeout=0.05)
    def task(kind: str) -> None:
        if kind == "snooze":
            current_job.snooze(60)
        while kind == "loop":
            pass
        raise LookupError(kind)

    with pytest.raises(LookupError, match="x"):
        perform(task, "x")
    with pytest.raises(Snooze):
        perform(task, "snooze")
    with pytest.raises(TimeoutInterrupt):
        perform(task, "loop")
    with pytest.raises(TypeError, match="missing a required argument"):
        perform(task)
    with pytest.raises(TypeError, match=r"args\.kind: object is not JSON"):
        perform(task, object())


def test_a_typed_task_is_validated_and_converted(offline: App) -> None:
    @offline.task(name="t", typed=True)
    def task(day: date) -> date:
        return day

    assert_type(perform(task, date(2026, 3, 1)), date)
    assert perform(task, day=date(2026, 3, 1)) == date(2026, 3, 1)
    with pytest.raises(InvalidPayload):
        perform(task, "2026-03-01")


def test_a_coroutine_runs_to_its_end(offline: App) -> None:
    @offline.task(name="t", typed=True)
    async def task(day: date) -> date:
        return day

    assert_type(perform(task, date(2026, 3, 1)), date)
    assert perform(task, date(2026, 3, 1)) == date(2026, 3, 1)


def test_there_is_no_connection(offline: App) -> None:
    task = offline.task(name="t")(lambda: current_job.connection)
    with pytest.raises(InvalidOperation, match=r"has no database for current_job\.connection"):
        perform(task)


# --- callers


@pytest.fixture
def send(offline: App) -> Task[..., None]:
    @offline.task(name="send", queue="emails")
    def send(n: int, more: Any = None) -> None: ...

    return send


def test_a_mock_records_what_is_enqueued(offline: App, send: Task[..., None]) -> None:
    with MockQueue(offline) as queue:
        job = send.enqueue(1, (2,))
        late = send.options(delay=60, tags=["x"], priority=1).using(None).enqueue(2)
        assert send.enqueue_many([(3,), {"n": 4}]) == 2
        assert send.options(unique=True).enqueue_many([(5,)], ids=True) == [5]

        @offline.task(name="new")
        def new() -> None: ...

        new.enqueue()
        asyncio.run(new.using(None).aenqueue())
    assert (job.args, job.state, job.queue) == ({"n": 1, "more": [2]}, JobState.AVAILABLE, "emails")
    assert (late.state, late.tags, late.priority) == (JobState.SCHEDULED, ("x",), 1)
    assert [(j.task, j.id) for j in queue.jobs] == [*(("send", n) for n in range(1, 6)), ("new", 6), ("new", 7)]
    assert isinstance(job, Job)
    queue.clear()
    assert queue.jobs == []


def test_a_mock_checks_arguments_and_goes_away(offline: App, send: Task[..., None]) -> None:
    before = send.enqueuing
    with MockQueue(offline) as queue, pytest.raises(TypeError, match=r"args\.n: object is not JSON"):
        send.enqueue(object())
    with MockQueue(offline), pytest.raises(TypeError):
        send.enqueue_many([(1,), ()])
    assert queue.jobs == []
    assert send.enqueuing is before
