"""What is true around every job: connections, recorded queries, language and time zone."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, connections, reset_queries, transaction
from django.test import override_settings
from django.utils import timezone, translation

from qworker.contrib.django import app as project
from qworker.testing import drain

APP: Any = project


@pytest.fixture
def block(site: Path) -> Iterator[None]:
    """What a TestCase has around each of its tests."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def no_tasks_remain() -> Iterator[None]:
    before = set(APP.tasks)
    yield
    for name in APP.tasks.keys() - before:
        del APP.tasks[name]


@pytest.mark.parametrize("age", [0, 600])
def test_the_connection_of_a_test_is_not_closed(block: None, age: int) -> None:
    connection.settings_dict["CONN_MAX_AGE"] = age

    @APP.task(name="query")
    def query() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT txid_current()::text")
            return cursor.fetchone()[0]

    query.enqueue()
    (attempt,) = drain(APP)
    with connection.cursor() as cursor:
        cursor.execute("SELECT txid_current()::text")
        assert attempt.result == cursor.fetchone()[0], "in the transaction of the test"


def test_outside_of_a_block_obsolete_connections_are_closed_around_each_job(site: Path) -> None:
    connection.settings_dict["CONN_MAX_AGE"] = 0

    @APP.task(name="pids")
    def pids() -> int:
        connections["default"].ensure_connection()
        return int(connections["default"].connection.info.backend_pid)

    pids.using(None).enqueue_many([(), ()])
    APP.ambient.shares = False  # as in a worker
    try:
        first, second = (attempt.result for attempt in drain(APP))
    finally:
        APP.ambient.shares = True
    assert first != second
    assert connections["default"].connection is None


def test_recorded_queries_are_forgotten(block: None) -> None:
    @APP.task(name="count")
    def count() -> int:
        return len(connection.queries)

    with override_settings(DEBUG=True):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert connection.queries
        count.enqueue()
        assert [attempt.result for attempt in drain(APP)] == [0]
        reset_queries()


def test_language_and_time_zone_are_those_of_the_settings(block: None) -> None:
    @APP.task(name="local")
    def local() -> list[str]:
        seen = [translation.get_language(), timezone.get_current_timezone_name()]
        translation.activate("fr")
        timezone.activate(timezone.get_fixed_timezone(timedelta(hours=9)))
        return seen

    local.enqueue_many([(), ()])
    with translation.override("de"), timezone.override("America/Lima"):
        results = [attempt.result for attempt in drain(APP)]
        assert (translation.get_language(), timezone.get_current_timezone_name()) == ("de", "America/Lima")
    assert results == [[settings.LANGUAGE_CODE, settings.TIME_ZONE]] * 2, "also after a job that has activated others"


def rows_in_a_block() -> Iterator[int]:
    with transaction.atomic():
        yield from [1, 2]


@pytest.fixture
def worker(site: Path) -> Iterator[None]:
    """What is true in a worker: jobs are claimed on a connection of its own, and Django's persists."""
    call_command("migrate", verbosity=0)
    connection.settings_dict["CONN_MAX_AGE"] = None
    APP.ambient.shares = False
    yield
    APP.ambient.shares = True
    connection.in_atomic_block = False
    connection.close()
    ContentType.objects.filter(app_label="shop").delete()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("returns", [False, True], ids=["raises", "returns"])
def test_a_block_that_a_handler_left_open_takes_no_writes_of_later_jobs(
    returns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []

    @APP.task(name="leaky", retry=1)
    def leaky() -> None:
        if returns:
            kept.append(rows_in_a_block())
            next(kept[0])
            ContentType.objects.create(app_label="shop", model="leaked")
            return
        items = rows_in_a_block()
        for item in items:
            raise ValueError(item)

    @APP.task(name="creates")
    def creates(n: int) -> None:
        with transaction.atomic():
            ContentType.objects.create(app_label="shop", model=f"row{n}")

    leaky.enqueue()
    (first,) = drain(APP, raise_failures=False)
    creates.enqueue_many([(1,), (2,)])
    assert [attempt.state for attempt in drain(APP)] == ["completed"] * 2
    connection.in_atomic_block = False  # what was not committed is lost with the session
    connection.close()
    assert set(ContentType.objects.filter(app_label="shop").values_list("model", flat=True)) == {"row1", "row2"}
    assert first.state == "failed"
    if returns:
        assert "leaky returned inside atomic() of the database 'default'" in str(first.error)
        assert "leaky) ended inside atomic() of the database 'default'" in caplog.text


@pytest.mark.usefixtures("worker")
def test_a_generator_in_a_traceback_is_closed_with_its_job_and_ends_no_block_of_a_later_one() -> None:
    errors: list[BaseException] = []

    @APP.middleware
    def keep(_job: Any, call_next: Any) -> Any:
        try:
            return call_next()
        except ValueError as error:
            errors.append(error)
            raise

    @APP.task(name="leaky", retry=1)
    def leaky() -> None:
        items = rows_in_a_block()
        for item in items:
            raise ValueError(item)

    @APP.task(name="rolls_back", retry=1)
    def rolls_back() -> None:
        with transaction.atomic():
            errors.clear()
            ContentType.objects.create(app_label="shop", model="halfway")
            transaction.set_rollback(True)

    try:
        leaky.enqueue()
        drain(APP, raise_failures=False)
        rolls_back.enqueue()
        assert [attempt.state for attempt in drain(APP)] == ["completed"]
    finally:
        APP.middlewares.remove(keep)
    assert not ContentType.objects.filter(app_label="shop").exists()
