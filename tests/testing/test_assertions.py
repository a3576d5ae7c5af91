"""What was enqueued and not yet run."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from qworker import App, Task
from qworker.testing import MockQueue, assert_enqueued, drain, enqueued, refute_enqueued, travel

Connection = psycopg.Connection[Any]


@pytest.fixture
def send(app: App) -> Task[..., Any]:
    @app.task(name="send", queue="emails")
    def send(user: int, mail: Any = None) -> None: ...

    return send


@pytest.fixture(params=["database", "mock"])
def place(request: pytest.FixtureRequest, app: App) -> Any:
    """Both places where jobs may be enqueued."""
    if request.param == "database":
        yield request.getfixturevalue("conn")
        return
    with MockQueue(app) as queue:
        yield queue


def test_jobs_are_found_by_part_of_their_arguments(app: App, send: Task[..., Any], place: Any) -> None:
    jobs = [send.enqueue(1, {"to": "eve", "cc": ["a", "b"]}), send.enqueue(2), send.enqueue(1, {"to": "bob"})]
    ids = [job.id for job in jobs]
    assert [job.id for job in enqueued(send)] == ids
    assert [job.id for job in assert_enqueued(send, {"user": 1})] == [ids[0], ids[2]]
    assert [job.id for job in assert_enqueued(send, {"mail": {"to": "eve"}})] == [ids[0]]
    assert_enqueued(send, {"user": 1, "mail": {"cc": ("a", "b")}}, count=1)
    refute_enqueued(send, {"user": 3})
    refute_enqueued(send, {"mail": {"cc": ["a"]}})
    other: Task[[], None] = app.task(name="other")(lambda: None)
    refute_enqueued(other)


def test_jobs_are_found_by_their_options(send: Task[..., Any], place: Any) -> None:
    plain, late = send.enqueue(1), send.options(queue="slow", priority=1, delay=3600, tags=["x"]).enqueue(2)
    tomorrow = send.options(run_at=datetime.now(UTC) + timedelta(days=1)).enqueue(3)
    assert [job.id for job in enqueued(send, queue="emails")] == [plain.id, tomorrow.id]
    assert [job.id for job in enqueued(send, priority=1, tag="x")] == [late.id]
    assert [job.id for job in enqueued(send, after=timedelta(hours=1))] == [late.id, tomorrow.id]
    assert [job.id for job in enqueued(send, after=datetime.now(UTC) + timedelta(hours=2))] == [tomorrow.id]
    refute_enqueued(send, after=timedelta(days=2))
    with travel(timedelta(days=7)):
        send.options(delay=3600).enqueue(4)
        assert_enqueued(send, {"user": 4}, after=timedelta(hours=1))
        refute_enqueued(send, {"user": 4}, after=timedelta(hours=2))


def test_jobs_that_have_run_are_not_waiting(app: App, send: Task[..., Any], conn: Connection) -> None:
    send.enqueue(1)
    drain(app)
    refute_enqueued(send)


def test_arguments_of_typed_tasks_are_compared_as_values(app: App, place: Any) -> None:
    @app.task(name="t", typed=True)
    def task(day: date, many: list[date] | None = None) -> None: ...

    task.enqueue(date(2026, 3, 1), [date(2026, 3, 2)])
    assert_enqueued(task, {"day": date(2026, 3, 1), "many": [date(2026, 3, 2)]}, count=1)
    refute_enqueued(task, {"day": date(2026, 3, 2)})


def test_arguments_of_typed_tasks_are_compared_as_they_are_stored(app: App, place: Any) -> None:
    @app.task(name="t", typed=True)
    def task(day: date, many: list[date], key: UUID) -> None: ...

    key = UUID(int=7)
    task.enqueue(date(2026, 3, 1), [date(2026, 3, 2)], key)
    assert_enqueued(task, {"day": "2026-03-01", "many": ["2026-03-02"]}, count=1)
    assert_enqueued(task, {"day": "2026-03-01", "key": key}, count=1)
    refute_enqueued(task, {"day": "2026-03-02"})
    refute_enqueued(task, {"key": "7"})


def test_a_failure_lists_what_was_there(app: App, send: Task[..., Any], place: Any) -> None:
    other = app.task(name="other", tags=["x"])(lambda _n: None)
    with pytest.raises(AssertionError, match=r"expected a job of send with \{'user': 1\}, found 0; no job is waiting"):
        assert_enqueued(send, {"user": 1})
    send.options(delay=60).enqueue(7)
    for n in range(20):
        other.enqueue(n)
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(send, {"user": 1}, queue="emails")
    head, *lines, last = str(caught.value).splitlines()
    assert head == "expected a job of send with {'user': 1} queue='emails', found 0; waiting are:"
    assert lines[0].startswith("  send {\"user\": 7} in 'emails', priority 5, runs at 20")
    assert lines[1] == "  other {\"_n\": 0} in 'default', priority 5, tags ['x']"
    assert (len(lines), last) == (20, "  and 1 more")
    with pytest.raises(AssertionError, match="expected 2 jobs of send, found 1"):
        assert_enqueued(send, count=2)
    with pytest.raises(AssertionError, match="expected no job of send, found 1; waiting are:"):
        refute_enqueued(send)
