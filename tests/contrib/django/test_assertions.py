"""Tasks of Django among what a test has enqueued."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from qworker.contrib.django.api import task_backends
from qworker.testing import MockQueue, assert_enqueued, drain, enqueued, perform, refute_enqueued
from tests.contrib.django.shop import tasks


@pytest.fixture(params=["database", "mock"])
def place(request: pytest.FixtureRequest, site: Path) -> Iterator[Any]:
    app: Any = task_backends["default"].app
    if request.param == "mock":
        with MockQueue(app):
            yield
        return
    with transaction.atomic():
        yield
        drain(app, raise_failures=False)
        transaction.set_rollback(True)


def test_arguments_are_found_by_name_however_they_were_passed(place: Any) -> None:
    for task in (tasks.gives, tasks.attempt):
        refute_enqueued(task)
    tasks.gives.enqueue("nan")
    tasks.gives.enqueue(what="tuple")
    tasks.attempt.enqueue(7)
    tasks.echo.enqueue(1, 2, more=3)
    assert len(enqueued(tasks.gives)) == 2
    assert_enqueued(tasks.gives, {"what": "nan"}, count=1)
    assert_enqueued(tasks.gives, {"what": "tuple"}, count=1, queue="default")
    assert_enqueued(tasks.attempt, {"x": 7}, count=1)
    assert_enqueued(tasks.echo, {"*": [1, 2], "more": 3}, count=1)
    with pytest.raises(
        AssertionError, match=r"expected a job of tests.*gives with \{'what': 'x'\}, found 0; waiting are"
    ):
        assert_enqueued(tasks.gives, {"what": "x"})
    with pytest.raises(AssertionError, match=r"expected no job of tests.*gives.*found 2"):
        refute_enqueued(tasks.gives)


def test_what_is_no_task_of_qworker_is_refused() -> None:
    with pytest.raises(TypeError, match="is neither a task of a qworker App nor one of Django's"):
        enqueued(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a task of Django is called by task\.call"):
        perform(tasks.gives, "nan")
