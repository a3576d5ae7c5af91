"""Django's backends for tests, with tasks that have the options of jobs."""

from typing import Any

import django
import pytest
from django.test import override_settings

from qworker.contrib.django.api import InvalidTask, TaskResultStatus, task_backends
from qworker.contrib.django.backend import QworkerTask
from tests.contrib.django.shop import tasks

DUMMY, IMMEDIATE = "qworker.contrib.django.DummyBackend", "qworker.contrib.django.ImmediateBackend"


def using(backend: str) -> Any:
    return override_settings(TASKS={"default": {"BACKEND": backend, "QUEUES": []}})


def refused() -> None: ...


def declared(**options: Any) -> Any:
    """Return a task as `@task(**options)` makes it."""
    values = {"func": tasks.echo.func, "priority": 0, "backend": "default", "queue_name": "default", "run_after": None}
    return task_backends["default"].task_class(**{**values, **options})


def test_the_dummy_keeps_results_of_tasks_with_options() -> None:
    with using(DUMMY):
        task = declared(timeout=60, max_attempts=5, backoff=10, unique=True)
        result = task.enqueue(1)
        assert task_backends["default"].results == [result]
        assert (result.status, result.task.max_attempts) == (TaskResultStatus.READY, 5)
        task_backends["default"].clear()


def test_the_immediate_backend_runs_tasks_with_options() -> None:
    with using(IMMEDIATE):
        assert declared(timeout=60, unique="once").enqueue(1).return_value == [[1], {}]


@pytest.mark.parametrize("backend", [DUMMY, IMMEDIATE, "qworker.contrib.django.Backend"])
def test_options_that_no_job_can_have_are_refused_by_all(backend: str) -> None:
    with using(backend), pytest.raises(InvalidTask, match=r"refused: .*timeout"):
        declared(func=refused, timeout=-1)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="the decorator takes options from Django 6.1 on")
@pytest.mark.parametrize("backend", [DUMMY, IMMEDIATE, "qworker.contrib.django.Backend"])
def test_the_decorator_takes_the_options(backend: str) -> None:
    from django.tasks import task  # type: ignore[import-not-found,unused-ignore]

    with using(backend):
        made = task(timeout=60, max_attempts=5, backoff=10, unique=True)(tasks.echo.func)
        assert isinstance(made, QworkerTask)
        assert (made.timeout, made.max_attempts, made.backoff, made.unique) == (60, 5, 10, True)
        with pytest.raises(TypeError):
            task(retries=3)(tasks.echo.func)
