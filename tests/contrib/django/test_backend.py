"""Django's tasks on real nodes: what no test suite of others asks for."""

import asyncio
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from qworker.contrib.django import Backend, application
from qworker.contrib.django.api import InvalidTask, Task, TaskResultDoesNotExist, TaskResultStatus, task_backends
from qworker.contrib.django.backend import QworkerTask
from qworker.contrib.django.errors import Cancelled, WorkerDied
from tests import roles
from tests.contrib.django.conftest import lines
from tests.contrib.django.shop import tasks
from tests.database import Database
from tests.lifecycle.node import Node
from tests.waiting import until

Burst = Callable[..., Node]
READY, FAILED, SUCCESSFUL = TaskResultStatus.READY, TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL
pytestmark = pytest.mark.usefixtures("site")
SENDER = "qworker.contrib.django.backend.Backend"


def test_arguments_are_kept_as_they_were_given(burst: Burst) -> None:
    result = tasks.echo.enqueue(1, (2, b"3"), four={"five": 6}, args=7, kwargs=8)
    assert result == tasks.echo.get_result(result.id)
    assert (result.args, result.kwargs) == ([1, [2, "3"]], {"four": {"five": 6}, "args": 7, "kwargs": 8})
    burst()
    result.refresh()
    assert result.return_value == [result.args, result.kwargs]
    assert tasks.echo.get_result(result.id).task == tasks.echo


def test_the_sender_of_signals_is_the_class_and_the_state_is_stored_before(burst: Burst, site: Path) -> None:
    good, bad = tasks.echo.enqueue(), tasks.fails.enqueue()
    burst()
    found = {(s["id"], s["signal"]): s for s in lines(site, "signals")}
    for result, end in ((good, SUCCESSFUL), (bad, FAILED)):
        for name, status in (("enqueued", READY), ("started", TaskResultStatus.RUNNING), ("finished", end)):
            noted = found.pop((result.id, name))
            assert (noted["sender"], noted["status"], noted["stored"], noted["equal"]) == (SENDER, status, status, True)
    assert not found


def test_broken_receivers_change_nothing(burst: Burst, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BROKEN_RECEIVERS", "1")
    result = tasks.echo.enqueue()
    burst(SHOP_BROKEN_RECEIVERS="1")
    assert tasks.echo.get_result(result.id).status == SUCCESSFUL
    assert [s["signal"] for s in lines(site, "signals")] == ["enqueued", "started", "finished"]


def test_between_two_attempts_a_result_is_ready_and_has_the_error(start: Callable[..., Node], site: Path) -> None:
    result = tasks.second_time.enqueue("first")
    first = start("reports", "--queues", "reports:default")
    until((site / "first").exists, what="the first attempt")
    first.signal(signal.SIGTERM)
    (site / "first.go").touch()
    assert first.wait() == 0
    result.refresh()
    assert (result.status, result.attempts, result.is_finished) == (READY, 1, False)
    assert result.started_at == result.last_attempted_at >= result.enqueued_at
    assert [error.exception_class for error in result.errors] == [ConnectionError]
    began = result.started_at
    start("reports", "--queues", "reports:default", "--burst").wait()
    result.refresh()
    assert (result.status, result.attempts, result.return_value) == (SUCCESSFUL, 2, "done")
    assert len(set(result.worker_ids)) == 2
    assert result.started_at == began < result.last_attempted_at <= result.finished_at
    assert len(result.errors) == 1
    assert [s["signal"] for s in lines(site, "signals")] == ["enqueued", "started", "started", "finished"]


def test_the_result_of_a_task_whose_worker_crashed_is_failed(burst: Burst, site: Path) -> None:
    result = tasks.dies.enqueue()
    burst()
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    assert result.errors[0].exception_class is WorkerDied
    assert "signal:KILL" in result.errors[0].traceback
    assert result.started_at == result.last_attempted_at <= result.finished_at
    finished = [s for s in lines(site, "signals") if s["signal"] == "finished"]
    assert [(s["sender"], s["stored"], s["equal"]) for s in finished] == [(SENDER, FAILED, True)]


def test_the_highest_priority_comes_first_over_the_whole_range(burst: Burst, site: Path) -> None:
    priorities = [*range(-100, 101, 7), -100, 100, 0, 1, -1, 99, -99]
    random.Random(7).shuffle(priorities)
    for priority in priorities:
        result = tasks.counts.using(priority=priority).enqueue(priority)
        assert tasks.counts.get_result(result.id).task.priority == priority
    burst()
    assert [line["n"] for line in lines(site, "counted")] == sorted(priorities, reverse=True)


def test_a_node_runs_the_tasks_of_one_alias_only(burst: Burst) -> None:
    ours, theirs = tasks.echo.enqueue(), tasks.reported.enqueue()
    both = tasks.echo.using(backend="reports").enqueue()
    burst()
    assert tasks.echo.get_result(ours.id).status == SUCCESSFUL
    assert task_backends["reports"].get_result(theirs.id) == theirs
    assert task_backends["reports"].get_result(both.id) == both
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["reports"].get_result(ours.id)
    burst("reports", "--queues", "reports:default")
    assert task_backends["reports"].get_result(theirs.id).return_value == "report"
    assert task_backends["reports"].get_result(both.id).status == SUCCESSFUL


def test_the_longest_prefix_of_a_queue_decides_to_which_backend_a_result_belongs() -> None:
    backend = {"BACKEND": "qworker.contrib.django.Backend", "QUEUES": []}
    with override_settings(TASKS=dict.fromkeys(("default", "a", "a:b"), backend)):
        results = {name: tasks.echo.using(backend=name).enqueue() for name in ("default", "a", "a:b")}
        for asked in results:
            for name, result in results.items():
                if asked == name:
                    assert task_backends[asked].get_result(result.id) == result
                else:
                    with pytest.raises(TaskResultDoesNotExist):
                        task_backends[asked].get_result(result.id)


def test_a_task_cannot_be_enqueued_into_the_queues_of_another_backend() -> None:
    backend = {"BACKEND": "qworker.contrib.django.Backend", "QUEUES": []}
    with override_settings(TASKS=dict.fromkeys(("default", "a"), backend)):
        with pytest.raises(InvalidTask, match=r"queue 'a:mail' is one of the backend 'a'.*using\(backend='a'\)"):
            tasks.echo.using(queue_name="a:mail").enqueue()
        assert tasks.echo.using(queue_name="b:mail").enqueue().status == READY


def once(x: int) -> None: ...


@pytest.mark.parametrize(("first", "second"), [("default", "reports"), ("reports", "default")])
def test_a_unique_key_may_be_held_by_a_job_of_another_backend(first: str, second: str, site: Path) -> None:
    task = QworkerTask(
        func=once, priority=0, backend="default", queue_name="default", run_after=None, unique=True
    )  # fmt: skip
    holder = task.using(backend=first).enqueue(1)
    found = task.using(backend=second).enqueue(1)
    assert found == holder
    assert (found.backend, found.task.queue_name) == (first, "default")
    found.refresh()
    assert [signal["id"] for signal in lines(site, "signals")] == [holder.id] * 2


def test_what_is_remembered_of_queues_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "MAX_SPECS", 5)
    for n in range(20):
        tasks.echo.using(queue_name=f"customer{n}").enqueue()
    assert 0 < len(task_backends["default"].app._specs) <= 5


@pytest.mark.parametrize(
    "garbage", ["\u0661", "123", 123, "abc", "", " 1 ", "1 ", "01", "-1", "1_0", 10**30, str(10**30), None, b"1", []]
)  # fmt: skip
def test_whatever_is_no_id_is_of_no_result(garbage: Any) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        tasks.echo.get_result(garbage)


@pytest.mark.parametrize(
    ("what", "error"), [("object", "TypeError"), ("nan", "ValueError"), ("large", "PayloadTooLarge")]
)
def test_a_result_that_cannot_be_stored_fails_the_task(burst: Burst, what: str, error: str) -> None:
    result = tasks.gives.enqueue(what)
    burst()
    result.refresh()
    assert (result.status, result._return_value) == (FAILED, None)
    assert result.errors[0].exception_class.__name__ == error


@pytest.mark.parametrize(("what", "value"), [("tuple", [1, 2]), ("bytes", "abc")])
def test_a_result_is_normalized_as_django_does(burst: Burst, what: str, value: Any) -> None:
    result = tasks.gives.enqueue(what)
    burst()
    result.refresh()
    assert result.return_value == value


@pytest.mark.parametrize("value", [object(), timezone.now(), {1, 2}, math.nan, {1: 2}, "\0", b"\xff"])
def test_arguments_that_are_not_json_are_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        tasks.echo.enqueue(value)


def test_a_task_joins_the_transaction() -> None:
    with transaction.atomic():
        kept = tasks.echo.enqueue(1)
        assert tasks.echo.get_result(kept.id) == kept
        kept.refresh()
        with transaction.atomic():
            lost = tasks.echo.enqueue(2)
            transaction.set_rollback(True)
        with pytest.raises(TaskResultDoesNotExist):
            tasks.echo.get_result(lost.id)
    assert tasks.echo.get_result(kept.id) == kept


def test_the_context_is_that_of_the_running_attempt(burst: Burst) -> None:
    result = tasks.describe.enqueue()
    burst()
    result.refresh()
    assert result.return_value == [result.id, "RUNNING", 1, [], {}, result.worker_ids]


def test_coroutines_run_and_are_enqueued(burst: Burst) -> None:
    async def both() -> Any:
        result = await tasks.later.aenqueue(1)
        assert await tasks.later.aget_result(result.id) == result
        result.refresh()  # even this, with Django's connection out of reach
        return result

    result = asyncio.run(both())
    burst()
    result.refresh()
    assert result.return_value == 2


def test_a_task_waits_for_its_time(burst: Burst) -> None:
    soon, late = (tasks.echo.using(run_after=timezone.now() + timedelta(seconds=s)) for s in (0.5, 3600))
    first, second = soon.enqueue(), late.enqueue()
    assert tasks.echo.get_result(second.id) == second
    until(lambda: timezone.now() > soon.run_after, what="the first time")
    burst()
    first.refresh()
    assert (first.status, tasks.echo.get_result(second.id).status) == (SUCCESSFUL, READY)
    assert first.started_at >= soon.run_after == first.task.run_after == tasks.echo.get_result(first.id).task.run_after


def test_a_time_in_the_past_is_kept() -> None:
    result = tasks.echo.using(run_after=timezone.now() - timedelta(hours=1)).enqueue()
    assert tasks.echo.get_result(result.id) == result


def test_a_role_that_may_only_call_the_function_stores_the_same_job(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, when, wrapper = database.connect(), timezone.now() + timedelta(hours=1), connections["default"]
    roles.create(owner)
    try:
        with monkeypatch.context() as patch:
            wrapper.close()
            patch.setattr(wrapper, "settings_dict", {**wrapper.settings_dict, "USER": "producer", "PASSWORD": "pw"})
            made = [tasks.counts.using(priority=priority).enqueue(1) for priority in (-100, -5, -4, 0, 5, 6, 100)]
            later = tasks.counts.using(priority=100, run_after=when).enqueue(1)
            wrapper.close()
    finally:
        roles.drop(owner)
    for result in made:
        assert tasks.counts.get_result(result.id) == result
    assert tasks.counts.get_result(later.id).task.run_after == when


def test_a_cancelled_task_has_failed_with_a_reason() -> None:
    result = tasks.echo.enqueue()
    assert task_backends["default"].app.job(int(result.id)).cancel()
    result.refresh()
    assert (result.status, result.errors[0].exception_class, result.started_at) == (FAILED, Cancelled, None)


def test_the_result_of_a_task_that_was_removed_can_be_read(database: Database) -> None:
    result = tasks.echo.enqueue(1)
    with database.connect() as conn:
        conn.execute("UPDATE qworker.job SET task = 'gone.module.task'")
    found = task_backends["default"].get_result(result.id)
    assert (found.task.module_path, found.args, found.status) == ("gone.module.task", [1], READY)
    with pytest.raises(ImportError, match=r"gone\.module\.task"):
        found.task.call()


def test_a_job_of_the_application_itself_is_no_result() -> None:
    app = task_backends["default"].app

    @app.task(name="own")
    def own() -> None: ...

    try:
        with pytest.raises(TaskResultDoesNotExist):
            task_backends["default"].get_result(str(own.enqueue().id))
    finally:
        del app.tasks["own"]


@pytest.mark.parametrize("func", [lambda: None, tasks.Holder.method])
def test_a_function_that_no_worker_finds_is_refused(func: Any) -> None:
    with pytest.raises(InvalidTask, match="module level"):
        Task(func=func, priority=0, backend="default", queue_name="default", run_after=None)


@pytest.mark.parametrize("queue", ["a,b", " a", "", "x" * 201, "a\0"])
def test_a_queue_that_no_node_could_serve_is_refused(queue: str) -> None:
    with pytest.raises(InvalidTask):
        tasks.echo.using(queue_name=queue)


@pytest.fixture
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of the settings in this process, as Django sets it."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", settings.TIME_ZONE)
        time.tzset()
        yield
    time.tzset()


def test_times_without_time_zones_are_naive(local_time: None) -> None:
    with override_settings(USE_TZ=False):
        now = timezone.now()
        result = tasks.echo.using(run_after=now + timedelta(hours=1)).enqueue()
        assert result.enqueued_at.tzinfo is None
        assert abs(result.enqueued_at - now) < timedelta(seconds=60)
        assert tasks.echo.get_result(result.id) == result


def test_a_backend_does_nothing_when_it_is_made() -> None:
    backend = Backend("other", {"OPTIONS": {"database": "not configured"}})
    assert backend.check()[0].id == "qworker.E002"
    assert Backend("other", {"OPTIONS": {"databse": "default"}}).check()[0].id == "qworker.E001"
