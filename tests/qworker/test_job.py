"""Looking at a job, waiting for it, and changing its course."""

import threading
from datetime import UTC, date, datetime

import pytest
from psycopg.rows import dict_row

from qworker import App, InvalidOperation, Job, JobCancelled, JobFailed, JobNotFound, JobState, Task, UnknownTask
from qworker.context import RunningJob, running
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query
from tests.waiting import until


@pytest.fixture
def add(app: App) -> Task[..., None]:
    @app.task(name="add")
    def add(a: int = 0, b: int = 0) -> None: ...

    return add


def claimed(fake_worker: FakeWorker) -> int:
    job_id = fake_worker.claim()
    assert job_id is not None
    return job_id


# --- waiting


@pytest.mark.parametrize("result", [None, 0, 3.5, "text", [1, {"a": None}], False])
def test_waiting_returns_the_result(add: Task[..., None], fake_worker: FakeWorker, result: object) -> None:
    job = add.enqueue(1, 2)
    fake_worker.complete(claimed(fake_worker), result)
    assert job.wait(1) == result
    assert job.refresh().result == result


def test_waiting_sees_an_end_that_comes_later(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.enqueue(1, 2)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(job.wait(10)))
    thread.start()
    fake_worker.complete(claimed(fake_worker), "late")
    thread.join()
    assert found == ["late"]


def test_waiting_for_a_failed_job_raises_what_its_last_attempt_left(
    add: Task[..., None], fake_worker: FakeWorker
) -> None:
    job = add.enqueue()
    fake_worker.fail(
        claimed(fake_worker), type="ZeroDivisionError", message="division by zero", attempt=3, cause="timeout"
    )
    with pytest.raises(JobFailed, match=rf"job {job.id} failed: ZeroDivisionError: division by zero") as caught:
        job.wait(1)
    error = caught.value
    assert (error.job_id, error.type, error.message, error.attempt, error.cause, error.traceback) == (
        job.id, "ZeroDivisionError", "division by zero", 3, "timeout", "...",
    )  # fmt: skip
    assert job.discard()
    with pytest.raises(JobFailed, match="division by zero"):
        job.wait(1)


def test_waiting_for_a_cancelled_job_raises(add: Task[..., None]) -> None:
    job = add.enqueue()
    assert job.cancel()
    with pytest.raises(JobCancelled, match=f"job {job.id} was cancelled"):
        job.wait(1)


def test_a_wait_times_out(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.enqueue()
    with pytest.raises(TimeoutError, match=rf"job {job.id} is still available after 0\.05 s"):
        job.wait(0.05)
    claimed(fake_worker)
    with pytest.raises(TimeoutError, match="is still running after 0 s"):
        job.wait(0)


def test_waiting_for_a_job_that_never_was_raises(app: App, add: Task[..., None], database: Database) -> None:
    with pytest.raises(JobNotFound, match="job 424242 not found"):
        app.admin.wait(424242, 1)
    conn = database.connect(autocommit=False)
    job = add.using(conn).enqueue()
    conn.rollback()
    with pytest.raises(JobNotFound, match="was rolled back"):
        job.wait(1)


def test_waiting_inside_the_transaction_that_enqueued_is_refused(
    add: Task[..., None], database: Database, fake_worker: FakeWorker
) -> None:
    conn = database.connect(autocommit=False)
    job = add.using(conn).enqueue()
    with pytest.raises(InvalidOperation, match="commit first"):
        job.wait(1)
    conn.commit()
    fake_worker.complete(claimed(fake_worker), "done")
    conn.execute("SELECT 1")  # the next transaction is another one
    assert job.wait(1) == "done"


def test_waiting_inside_a_handler_is_refused(add: Task[..., None], database: Database) -> None:
    job = add.enqueue()
    handler = RunningJob.start(
        job=1, task="t", queue="q", attempt=1, max_attempts=3, enqueued_at=0.0, started=0.0, deadline_at=1.0,
        connect=database.connect, report=lambda _id, _text: None,
    )  # fmt: skip
    token = running.set(handler)
    try:
        with pytest.raises(InvalidOperation, match="inside a handler"):
            job.wait(1)
    finally:
        running.reset(token)


def test_a_job_found_by_its_number_can_be_waited_for(app: App, add: Task[..., None], fake_worker: FakeWorker) -> None:
    job_id = add.enqueue().id
    fake_worker.complete(claimed(fake_worker), 5)
    assert app.job(job_id).wait(1) == 5


# --- looking


def test_a_look_shows_the_whole_life(app: App, add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.options(tags=["x"], priority=2).enqueue(1, b=2)
    assert not job.finished
    claimed(fake_worker)
    seen = job.refresh()
    assert (seen.state, seen.attempt, seen.finished) == (JobState.RUNNING, 1, False)
    assert seen.claimed_at is not None
    fake_worker.complete(job.id, 3)
    seen = app.job(job.id)
    assert (seen.state, seen.result, seen.duration, seen.args, seen.tags, seen.finished) == (
        JobState.COMPLETED, 3, 0.5, {"a": 1, "b": 2}, ("x",), True,
    )  # fmt: skip
    assert seen.enqueued_at == job.enqueued_at
    assert seen.finished_at is not None
    assert seen.claimed_at is not None
    assert seen.enqueued_at is not None
    assert seen.enqueued_at <= seen.claimed_at <= seen.finished_at <= datetime.now(UTC)


def test_a_failed_job_shows_its_errors(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.enqueue()
    fake_worker.fail(claimed(fake_worker), message="no luck")
    seen = job.refresh()
    assert seen.state is JobState.FAILED
    assert [error["message"] for error in seen.errors] == ["no luck"]


def test_moments_beyond_the_calendar_can_be_looked_at(add: Task[..., None], query: Query) -> None:
    job = add.enqueue()
    query("UPDATE qworker.job SET claimed_at = 'infinity', enqueued_at = '-infinity' RETURNING 1")
    assert job.refresh().claimed_at == datetime.max.replace(tzinfo=UTC)
    assert job.refresh().enqueued_at == datetime.min.replace(tzinfo=UTC)


def test_there_is_no_job_of_an_unknown_number(app: App) -> None:
    with pytest.raises(JobNotFound, match="job 1 not found"):
        app.job(1)


# --- cancelling, retrying, discarding


def test_a_waiting_job_is_cancelled_at_once(add: Task[..., None], fake_worker: FakeWorker) -> None:
    for job in (add.enqueue(), add.options(delay=60).enqueue()):
        assert job.cancel()
        assert job.refresh().state is JobState.CANCELLED
        assert not job.cancel()
    assert fake_worker.claim() is None


def test_a_running_job_is_asked_to_stop(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.enqueue()
    claimed(fake_worker)
    assert job.cancel()
    seen = job.refresh()
    assert (seen.state, seen.cancel_requested_at is not None) == (JobState.RUNNING, True)
    assert job.cancel()
    assert job.refresh() == seen


def test_cancelling_waits_for_a_claim_in_flight_and_sees_it(
    add: Task[..., None], database: Database, query: Query
) -> None:
    job = add.enqueue()
    conn = database.connect(autocommit=False)
    conn.execute("UPDATE qworker.job SET state = 'running', attempt = 1")
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(job.cancel()))
    thread.start()
    until(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    conn.commit()
    thread.join()
    assert found == [True]
    seen = job.refresh()
    assert (seen.state, seen.cancel_requested_at is not None) == (JobState.RUNNING, True)


def test_a_failed_job_runs_again_as_if_it_were_new(add: Task[..., None], fake_worker: FakeWorker, query: Query) -> None:
    job = add.enqueue()
    assert not job.retry()
    fake_worker.fail(claimed(fake_worker), message="no luck")
    query("UPDATE qworker.job SET crashes = 3, node_losses = 2, attempt = 3 RETURNING 1")
    assert job.retry()
    seen = job.refresh()
    assert (seen.state, seen.attempt, seen.crashes, seen.node_losses, seen.finished_at) == (
        JobState.AVAILABLE,
        0,
        0,
        0,
        None,
    )
    assert [error["message"] for error in seen.errors] == ["no luck"]
    assert fake_worker.claim() == job.id


def test_a_retried_job_queues_up_behind_those_that_wait(add: Task[..., None], fake_worker: FakeWorker) -> None:
    first = add.enqueue()
    fake_worker.fail(claimed(fake_worker))
    second = add.enqueue()
    assert first.retry()
    assert [fake_worker.claim(), fake_worker.claim()] == [second.id, first.id]


def test_only_failed_jobs_are_discarded(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.enqueue()
    assert not job.discard()
    assert not add.enqueue().retry()
    fake_worker.fail(claimed(fake_worker))
    assert not job.cancel()
    assert job.discard()
    assert job.refresh().state is JobState.DISCARDED
    assert not job.retry()


def test_what_is_done_to_a_job_on_the_callers_connection_belongs_to_its_transaction(
    add: Task[..., None], app: App, database: Database
) -> None:
    conn = database.connect(autocommit=False, row_factory=dict_row)
    job = add.using(conn).enqueue(1)
    with pytest.raises(JobNotFound, match="not committed yet"):
        app.job(job.id)
    assert job.refresh().refresh().args == {"a": 1}
    conn.commit()
    job = add.using(conn).enqueue(2)
    conn.execute("SAVEPOINT mine")
    assert job.cancel()
    assert job.refresh().state == "cancelled"
    conn.execute("ROLLBACK TO mine")
    conn.commit()
    assert job.refresh().state == "available"
    assert app.job(job.id).cancel()


# --- other arguments


def failed(job: Job, fake_worker: FakeWorker) -> Job:
    fake_worker.fail(claimed(fake_worker))
    return job.refresh()


def test_a_failed_job_is_retried_with_other_arguments(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = failed(add.enqueue(1, 2), fake_worker)
    with pytest.raises(TypeError, match="c"):
        job.retry({"a": 1, "c": 2})
    with pytest.raises(TypeError, match="too many"):
        job.retry([1, 2, 3])
    assert job.refresh().state == JobState.FAILED
    assert job.retry({"b": 7})
    assert job.refresh().args == {"b": 7}


def test_a_job_is_copied_with_the_same_or_other_arguments(add: Task[..., None], fake_worker: FakeWorker) -> None:
    job = add.options(priority=3, tags=["x"]).enqueue(1, 2)
    assert job.again() is None  # it has not ended
    fake_worker.complete(claimed(fake_worker), None)
    same, other = job.again(), job.again([8, 9])
    assert same is not None
    assert other is not None
    assert (same.args, other.args) == ({"a": 1, "b": 2}, {"a": 8, "b": 9})
    assert {(copy.state, copy.priority, copy.tags, copy.meta is not None and copy.meta["copy_of"])
            for copy in (same, other)} == {(JobState.AVAILABLE, 3, ("x",), job.id)}  # fmt: skip
    assert job.refresh().state == JobState.COMPLETED


def test_a_typed_task_rejects_values(app: App, fake_worker: FakeWorker) -> None:
    pytest.importorskip("pydantic")

    @app.task(name="typed", typed=True)
    def typed(day: date, orders: list[int]) -> None: ...

    job = failed(typed.enqueue(date(2026, 1, 31), [1]), fake_worker)
    with pytest.raises(ValueError, match="day"):
        job.again({"day": "tomorrow", "orders": [1]})
    assert job.retry({"day": "2026-02-01", "orders": [2]})
    assert job.refresh().args == {"day": "2026-02-01", "orders": [2]}


def test_arguments_of_a_task_of_another_application_are_not_guessed(
    app: App, add: Task[..., None], fake_worker: FakeWorker
) -> None:
    job = failed(add.enqueue(), fake_worker)
    other = App(app.dsn)
    with pytest.raises(UnknownTask, match="add"):
        other.job(job.id).retry({})
    other.close()
