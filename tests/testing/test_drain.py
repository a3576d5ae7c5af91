"""Jobs run in the test's process and transaction, through the code of the worker."""

import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import psycopg2  # type: ignore[import-untyped]
import pytest
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from qworker import App, InvalidOperation, Job, JobState, PermanentError, Retry, UnknownTask, current_job
from qworker.errors import TimeoutInterrupt
from qworker.testing import drain, travel
from tests.database import Database

Connection = psycopg.Connection[Any]


def states(app: App) -> list[tuple[str, str, int]]:
    return sorted((job.task, job.state.value, job.attempt) for job in app.jobs())


def test_jobs_run_and_what_they_enqueue_until_none_is_left(app: App, conn: Connection) -> None:
    @app.task(name="count")
    def count(n: int, seen: list[int]) -> int:
        if n:
            count.enqueue(n - 1, (n,))  # type: ignore[arg-type] # a tuple becomes a list
        return n

    count.enqueue(2, ())  # type: ignore[arg-type]
    first, second, third = drain(app)
    assert [(a.task, a.attempt, a.state, a.result, a.error) for a in (first, second, third)] == [
        ("count", 1, JobState.COMPLETED, 2, None),
        ("count", 1, JobState.COMPLETED, 1, None),
        ("count", 1, JobState.COMPLETED, 0, None),
    ]
    assert (second.args, second.queue, second.hook) == ({"n": 1, "seen": [2]}, "default", False)
    assert states(app) == [("count", "completed", 1)] * 3
    assert app.job(first.job_id).result == 2
    assert drain(app) == []


def test_the_most_urgent_job_runs_first_and_only_in_the_queues_named(app: App, conn: Connection) -> None:
    seen: list[Any] = []
    task = app.task(name="note")(seen.append)
    for queue, priority in [("a", 5), ("b", 1), ("a", 0), ("c", 0), ("b", 5)]:
        task.options(queue=queue, priority=priority).enqueue(f"{queue}{priority}")
    drain(app, ["b", "a"])
    assert seen == ["b1", "b5", "a0", "a5"]
    drain(app)
    assert seen[4:] == ["c0"]


def test_the_exception_of_an_attempt_is_raised_after_its_outcome_is_stored(app: App, conn: Connection) -> None:
    @app.task(name="fail")
    def fail() -> None:
        conn.execute("CREATE TABLE mine (n int)")
        raise ValueError("no luck")

    job = fail.enqueue()
    with pytest.raises(ValueError, match="no luck"):
        drain(app)
    job = job.refresh()
    assert (job.state, job.attempt, job.errors[0]["type"]) == (JobState.SCHEDULED, 1, "ValueError")
    assert "test_drain.py" in job.errors[0]["traceback"]
    assert conn.execute("SELECT to_regclass('mine')").fetchone() == (None,), "the attempt is undone"


def test_retries_are_jobs_that_are_due_later(app: App, conn: Connection) -> None:
    @app.task(name="flaky", retry=Retry(3, backoff=60, jitter=0))
    def flaky() -> str:
        if current_job.attempt < 3:
            raise ConnectionError(f"attempt {current_job.attempt} of {current_job.max_attempts}")
        return "done"

    flaky.enqueue()
    (first,) = drain(app, raise_failures=False)
    assert (first.state, first.delay, type(first.error)) == (JobState.SCHEDULED, 60.0, ConnectionError)
    assert drain(app) == []
    assert [a.attempt for a in drain(app, due=datetime.now(UTC) + timedelta(seconds=61), raise_failures=False)] == [2]
    (third,) = drain(app, due="all")
    assert (third.attempt, third.state, third.result) == (3, JobState.COMPLETED, "done")


def test_a_job_that_fails_for_good_calls_its_hooks(app: App, conn: Connection) -> None:
    heard: list[Any] = []

    @app.task(name="fail", retry=2)
    def fail(n: int) -> None:
        raise PermanentError("never") if n else LookupError("no")

    @fail.on_failure
    def hook(job: Job, error: Exception) -> None:
        heard.append(("hook", job.args, str(error)))

    @app.on_error
    def report(job: Job, error: Exception) -> None:
        heard.append(("report", job.state.value, type(error.__cause__).__name__))

    fail.enqueue(1)
    failed, hooked = drain(app, raise_failures=False)
    assert (failed.state, failed.delay, hooked.hook, hooked.state) == (JobState.FAILED, None, True, JobState.COMPLETED)
    said = f"job {failed.job_id} failed: qworker.errors.PermanentError: never"
    assert heard == [("report", "failed", "PermanentError"), ("hook", {"n": 1}, said)]
    fail.enqueue(0)
    assert len(drain(app, due="all", raise_failures=False)) == 3
    assert [entry[:2] for entry in heard[2:4]] == [("report", "scheduled"), ("report", "failed")]


def test_middleware_runs_around_every_job(app: App, conn: Connection) -> None:
    @app.middleware
    def around(job: Any, call_next: Callable[[], Any]) -> Any:
        return [job.task, call_next()]

    app.task(name="t")(lambda: 1).enqueue()
    assert drain(app)[0].result == ["t", 1]


def test_timeouts_interrupt_and_leave_the_timer_of_others(app: App, conn: Connection) -> None:
    @app.task(name="slow", timeout=0.05, retry=False)
    def slow() -> None:
        time.sleep(30)

    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        slow.enqueue()
        (attempt,) = drain(app, raise_failures=False)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        handler = signal.signal(signal.SIGALRM, before)
    assert isinstance(attempt.error, TimeoutInterrupt)
    assert (attempt.state, rung) == (JobState.FAILED, [])
    assert 50 < left < 60
    handler(signal.SIGALRM, None)  # type: ignore[operator, misc]
    assert rung == [1]


def test_in_another_thread_jobs_run_without_timeout(app: App, conn: Connection) -> None:
    app.task(name="t", timeout=0.01)(lambda: time.sleep(0.05)).enqueue()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(drain(app)))
    thread.start()
    thread.join()
    assert [a.state for a in found] == [JobState.COMPLETED]


def test_a_snooze_is_no_failure(app: App, conn: Connection) -> None:
    app.task(name="t")(lambda: current_job.snooze(30)).enqueue()
    (attempt,) = drain(app)
    assert (attempt.state, attempt.delay, attempt.error) == (JobState.SCHEDULED, 30.0, None)


def test_cancelled_and_expired_jobs_do_not_run(app: App, conn: Connection) -> None:
    task = app.task(name="t")(lambda: None)
    assert task.enqueue().cancel()
    task.options(expires=0.001).enqueue()
    conn.execute("SELECT pg_sleep(0.01)")
    assert drain(app) == []


def test_an_unknown_task_is_reported(app: App, conn: Connection) -> None:
    conn.execute("SELECT qworker.enqueue('gone')")
    with pytest.raises(UnknownTask, match="is of task 'gone', but the application has no tasks"):
        drain(app)
    (job,) = app.jobs()
    assert (job.state, job.attempt) == (JobState.SCHEDULED, 0)


def test_a_job_that_enqueues_itself_ends_at_the_limit(app: App, conn: Connection) -> None:
    @app.task(name="again")
    def again() -> None:
        again.enqueue()

    again.enqueue()
    with pytest.raises(InvalidOperation, match="has run 5 attempts, and jobs are left"):
        drain(app, limit=5)
    assert states(app) == [("again", "available", 0)] + [("again", "completed", 1)] * 5


def test_a_drain_inside_a_handler_is_refused(app: App, conn: Connection) -> None:
    app.task(name="t")(lambda: drain(app)).enqueue()
    with pytest.raises(InvalidOperation, match="inside a handler"):
        drain(app)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, pytest.fail.Exception])
def test_what_ends_a_test_passes_through(app: App, conn: Connection, raised: type[BaseException]) -> None:
    @app.task(name="t")
    def task() -> None:
        raise raised

    task.enqueue()
    with pytest.raises(raised):
        drain(app, raise_failures=False)


def test_a_database_error_in_a_handler_leaves_the_transaction_usable(app: App, conn: Connection) -> None:
    @app.task(name="t")
    def task() -> None:
        conn.execute("SELECT 1/0")

    task.enqueue()
    (attempt,) = drain(app, raise_failures=False)
    assert isinstance(attempt.error, psycopg.errors.DivisionByZero)
    assert states(app) == [("t", "scheduled", 1)]


def test_current_job_has_the_connection_of_the_test(app: App, conn: Connection) -> None:
    @app.task(name="write")
    def write(n: int) -> None:
        current_job.progress(0.5, "half")
        current_job.connection.execute("INSERT INTO mine VALUES (%s)", [n])

    conn.execute("CREATE TABLE mine (n int)")
    write.enqueue(7)
    drain(app)
    assert conn.execute("SELECT n FROM mine").fetchall() == [(7,)]


def test_a_transactional_job_ends_with_its_work(app: App, conn: Connection) -> None:
    @app.task(name="book", transactional=True)
    def book(n: int) -> int:
        current_job.connection.execute("INSERT INTO mine VALUES (%s)", [n])
        if not n:
            raise ValueError("no")
        return n

    conn.execute("CREATE TABLE mine (n int)")
    book.enqueue(7)
    (attempt,) = drain(app)
    assert (attempt.state, attempt.result) == (JobState.COMPLETED, 7)
    assert app.job(attempt.job_id).result == 7
    book.enqueue(0)
    drain(app, raise_failures=False)
    assert conn.execute("SELECT n FROM mine").fetchall() == [(7,)]


def test_typed_tasks_return_what_their_annotation_says(app: App, conn: Connection) -> None:
    @app.task(name="next", typed=True)
    def next_day(day: date) -> date:
        return day + timedelta(days=1)

    next_day.enqueue(date(2026, 3, 1))
    assert drain(app)[0].result == date(2026, 3, 2)


def test_rows_of_the_callers_connection_may_be_dicts(app: App, conn: Connection) -> None:
    conn.row_factory = dict_row
    app.task(name="t")(lambda: conn.execute("SELECT 1 AS one").fetchone()).enqueue()
    assert drain(app)[0].result == {"one": 1}
    assert conn.row_factory is dict_row


def test_a_given_connection_is_joined_by_the_jobs(app: App, database: Database) -> None:
    @app.task(name="first")
    def first() -> None:
        second.enqueue()

    second = app.task(name="second")(lambda: None)
    with database.connect(autocommit=False) as conn:
        first.using(conn).enqueue()
        assert [a.task for a in drain(app, using=conn)] == ["first", "second"]
        conn.rollback()
    assert list(app.jobs()) == []


def test_a_session_of_sqlalchemy_is_the_transaction(app: App, database: Database) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.dsn))

    @app.task(name="write")
    def write(n: int) -> None:
        session.execute(text("INSERT INTO pg_temp.mine VALUES (:n)"), {"n": n})
        if not n:
            raise ValueError("no")
        write.using(session).enqueue(n - 1)

    with Session(engine) as session:
        session.execute(text("CREATE TEMP TABLE mine (n int)"))
        write.using(session).enqueue(1)
        assert [a.state for a in drain(app, using=session, raise_failures=False)] == ["completed", "scheduled"]
        assert session.execute(text("SELECT n FROM pg_temp.mine")).scalars().all() == [1]
        session.rollback()
    engine.dispose()
    assert list(app.jobs()) == []


def test_the_session_of_the_application_is_the_transaction(database: Database) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.dsn))
    with Session(engine) as session:
        app = App(database.dsn, session=lambda: session)

        @app.task(name="write")
        def write(n: int) -> None:
            session.execute(text("INSERT INTO pg_temp.mine VALUES (:n)"), {"n": n})
            if not n:
                raise ValueError("no")
            write.enqueue(n - 1)

        session.execute(text("CREATE TEMP TABLE mine (n int)"))
        write.enqueue(1)
        assert [a.state for a in drain(app, raise_failures=False)] == ["completed", "scheduled"]
        assert session.execute(text("SELECT n FROM pg_temp.mine")).scalars().all() == [1]
        session.rollback()
        assert list(app.jobs()) == []
    app.close()
    engine.dispose()


def test_a_session_over_another_driver_is_refused(app: App, database: Database) -> None:
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(database.dsn))
    with Session(engine) as session, pytest.raises(TypeError, match=r"needs a connection of psycopg 3, as a worker"):
        drain(app, using=session)
    engine.dispose()


def test_handlers_may_commit_a_session_that_joins_an_outer_transaction(app: App, database: Database) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.dsn))
    with engine.connect() as conn:
        outer = conn.begin()
        conn.execute(text("CREATE TEMP TABLE mine (n int)"))
        with Session(bind=conn, join_transaction_mode="create_savepoint") as session:

            @app.task(name="write")
            def write(n: int) -> None:
                session.execute(text("INSERT INTO pg_temp.mine VALUES (:n)"), {"n": n})
                session.commit()

            write.using(session).enqueue(1)
            write.using(session).enqueue(2)
            assert [a.state for a in drain(app, using=session)] == ["completed", "completed"]
            assert session.execute(text("SELECT n FROM pg_temp.mine")).scalars().all() == [1, 2]
        outer.rollback()
    engine.dispose()
    assert list(app.jobs()) == []


def test_without_a_transaction_jobs_are_committed(app: App, database: Database) -> None:
    @app.task(name="t", transactional=True)
    def task() -> int:
        current_job.connection.execute("SELECT 1")
        return 1

    job = task.enqueue()
    (attempt,) = drain(app)
    assert attempt.result == 1
    assert job.wait(timeout=1) == 1


def test_a_drain_costs_little(app: App, conn: Connection) -> None:
    task = app.task(name="t")(lambda: None)
    drain(app)  # the first one imports and plans
    begun = time.process_time()  # others use the machine, too
    for _ in range(20):
        drain(app)
    empty = (time.process_time() - begun) / 20
    task.enqueue_many([()] * 200)
    begun = time.process_time()
    assert len(drain(app)) == 200
    job = (time.process_time() - begun) / 200
    assert empty < 0.005
    assert job < 0.001


# --- the clock


def test_time_passes_for_delays_and_retries(app: App, conn: Connection) -> None:
    @app.task(name="flaky", retry=Retry(2, backoff=3600, jitter=0))
    def flaky() -> str:
        if current_job.attempt == 1:
            raise ValueError("once more")
        return "done"

    flaky.options(delay=timedelta(days=1)).enqueue()
    assert drain(app) == []
    with travel(timedelta(days=1, seconds=1)):
        (first,) = drain(app, raise_failures=False)
        assert (first.attempt, first.delay) == (1, 3600.0)
        assert drain(app) == []
        later = flaky.options(delay=1800).enqueue()
        assert later.state is JobState.SCHEDULED
        with travel(3600):
            assert [(a.job_id, a.attempt) for a in drain(app, raise_failures=False)] == [
                (first.job_id, 2),
                (later.id, 1),
            ]
    assert drain(app) == []


def test_jobs_expire_and_keys_are_freed_while_time_passes(app: App, conn: Connection) -> None:
    task = app.task(name="t")(lambda: None)
    kept = task.options(unique_for=3600).enqueue()
    assert len(drain(app)) == 1
    expiring = task.options(expires=3600).enqueue()
    with travel(1800):
        assert task.options(unique_for=3600).enqueue().id == kept.id
    with travel(3601):
        later = task.options(expires=60).enqueue()
        assert not task.options(unique_for=3600).enqueue().duplicate
        assert [a.job_id for a in drain(app)][:1] == [later.id]
    assert expiring.refresh().state is JobState.CANCELLED


def test_schedules_tick_while_time_passes(app: App, conn: Connection) -> None:
    app.cron("0 3 * * *")(app.task(name="nightly")(lambda: None))
    app.cron("0 * * * *", misfire="all")(app.task(name="hourly")(lambda: None))
    assert drain(app) == []
    with travel(timedelta(days=2)):
        assert sorted(a.task for a in drain(app)) == ["hourly"] * 48 + ["nightly"]
        assert drain(app) == []
        with travel(timedelta(days=1)):
            assert sorted(a.task for a in drain(app)) == ["hourly"] * 24 + ["nightly"]


def test_the_clock_goes_forward_and_comes_back(app: App, conn: Connection) -> None:
    with pytest.raises(ValueError, match="goes forward"), travel(datetime(2000, 1, 1, tzinfo=UTC)):
        pass
    with pytest.raises(ValueError, match="has no time zone"), travel(datetime(2100, 1, 1)):  # noqa: DTZ001
        pass
    task = app.task(name="t")(lambda: None)
    with travel(datetime(2100, 1, 1, tzinfo=UTC)):
        job = task.options(delay=60).enqueue()
        (many,) = task.options(delay=60).enqueue_many([()], ids=True)
        for found in (job, app.job(many)):
            assert found.run_at is not None
            assert (found.run_at.year, found.run_at.minute) == (2100, 1)
    assert drain(app) == []
