"""What is true around every job: connections, recorded queries, language and time zone."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, connections, reset_queries, transaction
from django.test import override_settings
from django.utils import timezone, translation
from psycopg.pq import TransactionStatus

from qworker.contrib.django import app as project
from qworker.contrib.django.api import TaskResultStatus, task_backends, task_finished, task_started
from qworker.testing import drain
from tests.contrib.django.shop import tasks as shop_tasks
from tests.database import Database
from tests.lifecycle.node import Node
from tests.waiting import until

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


#: The generators that handlers leave open. Collected in a later test, they would leave the block without settings.
generators = WeakSet[Iterator[int]]()


def rows_in_a_block() -> Iterator[int]:
    def rows() -> Iterator[int]:
        with transaction.atomic():
            yield from [1, 2]

    generators.add(items := rows())
    return items


@pytest.fixture
def worker(site: Path) -> Iterator[None]:
    """What is true in a worker: jobs are claimed on a connection of its own, and Django's persists."""
    call_command("migrate", verbosity=0)
    connection.settings_dict["CONN_MAX_AGE"] = None
    APP.ambient.shares = False
    yield
    for items in list(generators):
        items.close()  # type: ignore[attr-defined] # generators
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


def rows() -> set[str]:
    return set(ContentType.objects.filter(app_label="shop").values_list("model", flat=True))


def is_idle() -> bool:
    """Return whether the connection is in no transaction, as the next job needs it."""
    conn = connection.connection
    return not connection.in_atomic_block and (conn is None or conn.pgconn.transaction_status == TransactionStatus.IDLE)


@pytest.mark.usefixtures("worker")
def test_a_transaction_that_a_handler_has_begun_by_a_statement_fails_the_attempt() -> None:
    @APP.task(name="begins", retry=1)
    def begins() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
        ContentType.objects.create(app_label="shop", model="lost")

    begins.enqueue()
    (attempt,) = drain(APP, raise_failures=False)
    assert (attempt.state, is_idle(), rows()) == ("failed", True, set())
    assert "begins returned inside atomic() of the database 'default'" in str(attempt.error)


@pytest.mark.usefixtures("worker")
def test_manual_transactions_end_with_the_job() -> None:
    @APP.task(name="manual")
    def manual() -> None:
        transaction.set_autocommit(False)
        ContentType.objects.create(app_label="shop", model="kept")
        transaction.commit()
        rows()

    manual.enqueue()
    (attempt,) = drain(APP)
    assert (attempt.state, is_idle(), rows()) == ("completed", True, {"kept"})
    assert connection.get_autocommit()


def leave_open(*_: Any, **__: Any) -> None:
    """A receiver or a hook that leaves a block open, or a transaction."""
    if connection.in_atomic_block or not is_idle():
        raise AssertionError("another receiver has left its transaction to this one")
    ContentType.objects.create(app_label="shop", model=f"committed{len(rows())}")
    transaction.atomic().__enter__()
    ContentType.objects.create(app_label="shop", model="lost")


@pytest.mark.usefixtures("worker")
def test_a_receiver_that_leaves_a_block_open_loses_its_own_work_only(caplog: pytest.LogCaptureFixture) -> None:
    for signal in (task_started, task_finished):
        signal.connect(leave_open)
    try:
        result = shop_tasks.writes.enqueue("kept")
        (attempt,) = drain(task_backends["default"].app)
    finally:
        for signal in (task_started, task_finished):
            signal.disconnect(leave_open)
    result.refresh()
    assert (attempt.state, result.status, is_idle()) == ("completed", TaskResultStatus.SUCCESSFUL, True)
    assert rows() == {"committed0", "kept", "committed2"}
    assert "a receiver of task_started ended inside atomic() of the database 'default'" in caplog.text
    assert "hook DjangoApp._send_finished ended inside atomic() of the database 'default'" in caplog.text


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("kind", ["error_hooks", "end_hooks"])
def test_hooks_of_the_application_have_usable_connections(kind: str) -> None:
    hooks, closed = list(getattr(APP, kind)), []

    def hook(_job: Any, _error: Any) -> None:
        closed.append(connection.connection is None)
        leave_open()

    (APP.on_error if kind == "error_hooks" else APP.on_end)(hook)
    connection.settings_dict["CONN_MAX_AGE"] = 0
    try:
        APP.task(name="fails", retry=1)(lambda: 1 / 0).enqueue_many([(), ()])
        drain(APP, raise_failures=False)
    finally:
        getattr(APP, kind)[:] = hooks
    assert (closed, is_idle()) == ([True, True], True)
    assert rows() == {"committed0", "committed1"}


@pytest.mark.usefixtures("worker")
def test_the_thread_that_reports_keeps_no_transaction_of_a_receiver(
    start: Callable[..., Node], database: Database
) -> None:
    start(SHOP_LEAKY_RECEIVERS="1")
    for n in range(3):
        shop_tasks.writes.enqueue(f"kept{n}")
    until(lambda: {f"kept{n}" for n in range(3)} <= rows(), what="three jobs")
    until(lambda: rows() >= {f"finished{n}" for n in range(3)}, what="what each receiver commits")
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    )
    with database.connect() as conn:
        until(lambda: conn.execute(idle).fetchone() == (0,), what="no transaction that waits for its client")
