"""Handlers that are declared with async def run in the tests of an application as in a worker."""

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from qworker import App, InvalidOperation, JobState, Retry, current_job
from qworker.errors import TimeoutInterrupt
from qworker.testing import MockQueue, assert_enqueued, drain, perform

Connection = psycopg.Connection[Any]


def test_a_coroutine_enqueues_retries_and_returns_through_the_code_of_the_worker(app: App, conn: Connection) -> None:
    @app.middleware
    def around(_job: Any, call_next: Callable[[], Any]) -> Any:
        return [call_next()]

    @app.task(name="fetch", retry=Retry(2, backoff=0))
    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        if current_job.attempt == 1:
            raise ConnectionError("once more")
        follow.enqueue(n)
        return n

    @app.task(name="follow")
    async def follow(n: int) -> str:
        return f"followed {n} on connection {current_job.connection is conn}"

    fetch.enqueue(7)
    attempts = drain(app, due="all", raise_failures=False)
    assert [(a.task, a.attempt, a.state, a.result, type(a.error)) for a in attempts] == [
        ("fetch", 1, JobState.SCHEDULED, None, ConnectionError),
        ("fetch", 2, JobState.COMPLETED, [7], type(None)),
        ("follow", 1, JobState.COMPLETED, ["followed 7 on connection True"], type(None)),
    ]


def test_a_failed_coroutine_is_undone(app: App, conn: Connection) -> None:
    @app.task(name="write", retry=False)
    async def write() -> None:
        conn.execute("CREATE TABLE mine (n int)")
        raise ValueError("no luck")

    write.enqueue()
    with pytest.raises(ValueError, match="no luck"):
        drain(app)
    assert conn.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_a_timeout_cancels_the_coroutine(app: App, conn: Connection) -> None:
    cancelled: list[int] = []

    @app.task(name="slow", timeout=0.05, retry=False)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    slow.enqueue()
    (attempt,) = drain(app, raise_failures=False)
    assert isinstance(attempt.error, TimeoutInterrupt)
    assert (attempt.state, cancelled) == (JobState.FAILED, [1])
    with pytest.raises(TimeoutInterrupt):
        perform(slow)


def test_a_typed_coroutine_is_converted(app: App, conn: Connection) -> None:
    @app.task(name="next", typed=True)
    async def next_day(day: date) -> date:
        return day + timedelta(days=1)

    next_day.enqueue(date(2026, 3, 1))
    assert_enqueued(next_day, {"day": date(2026, 3, 1)}, count=1)
    assert drain(app)[0].result == perform(next_day, date(2026, 3, 1)) == date(2026, 3, 2)
    with MockQueue(app) as queue:
        asyncio.run(next_day.aenqueue(date(2026, 3, 1)))
        assert_enqueued(next_day, {"day": date(2026, 3, 1)})
    assert queue.jobs[0].args == {"day": "2026-03-01"}


def test_inside_of_an_event_loop_it_runs_in_a_thread(app: App, conn: Connection) -> None:
    plain = app.task(name="plain")(lambda: "plain")
    plain.enqueue()

    async def no_coroutine() -> list[Any]:
        return [attempt.result for attempt in drain(app)]

    assert asyncio.run(no_coroutine()) == ["plain"]

    @app.task(name="fetch")
    async def fetch() -> str:
        return "fetched"

    fetch.enqueue()

    async def test() -> list[Any]:
        with pytest.raises(InvalidOperation, match=r"drain\(\) cannot run fetch.*await asyncio\.to_thread\(drain"):
            drain(app)
        with pytest.raises(InvalidOperation, match=r"perform\(\) cannot run fetch"):
            perform(fetch)
        return [perform(plain), *(attempt.result for attempt in await asyncio.to_thread(drain, app))]

    assert asyncio.run(test()) == ["plain", "fetched"]
