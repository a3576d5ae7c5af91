"""Jobs in the transactions of Django: the running atomic() block is the default."""

from collections.abc import Iterator
from typing import Any

import django.db  # type: ignore[import-untyped]
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.db import transaction
from django.db.utils import ConnectionHandler  # type: ignore[import-untyped]
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker import App, Refused, Task
from tests.database import Database
from tests.qworker.conftest import Query

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int) -> None: ...

    return send


@pytest.fixture(autouse=True)
def connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Django's databases: the test's as `default` and `replica`, and an SQLite beside it."""
    if not settings.configured:
        settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        django.setup()
    dsn = conninfo_to_dict(database.dsn)
    postgresql = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": dsn["dbname"],
        "USER": dsn["user"],
        "PASSWORD": dsn["password"],
        "HOST": dsn["host"],
        "PORT": dsn["port"],
    }
    lite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    handler = ConnectionHandler({"lite": lite, "default": postgresql, "replica": dict(postgresql)})
    monkeypatch.setattr(django.db, "connections", handler)
    monkeypatch.setattr(transaction, "connections", handler)
    yield handler
    handler.close_all()


def break_off(send: Task[..., None]) -> None:
    with transaction.atomic():
        send.enqueue(99)
        raise RuntimeError


def test_a_block_that_commits_makes_the_job(send: Task[..., None], query: Query) -> None:
    with transaction.atomic():
        send.enqueue(1)
        send.enqueue_many([(2,)])
        assert query(COUNT) == [(0,)]
    assert query(COUNT) == [(2,)]


def test_a_block_that_fails_does_not(send: Task[..., None], query: Query) -> None:
    with pytest.raises(RuntimeError):
        break_off(send)
    assert query(COUNT) == [(0,)]


def test_a_bad_row_does_not_break_the_block(send: Task[..., None], query: Query) -> None:
    with transaction.atomic():
        with pytest.raises(TypeError, match="row 0"):
            send.enqueue_many([()])
        send.enqueue(1)
    assert query(COUNT) == [(1,)]


def test_an_inner_block_takes_its_jobs_with_it(send: Task[..., None], query: Query) -> None:
    with transaction.atomic():
        send.enqueue(1)
        with pytest.raises(RuntimeError):
            break_off(send)
    assert query("SELECT args FROM qworker.job") == [({"n": 1},)]


@pytest.mark.parametrize("ids", [False, True])
def test_a_lazy_query_of_the_same_block_may_be_the_source(
    send: Task[..., None], connections: Any, query: Query, ids: bool
) -> None:
    def rows() -> Iterator[tuple[int]]:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT generate_series(1, 300)")
            for (n,) in cursor.fetchall():
                with transaction.atomic(), connections["default"].cursor() as other:
                    other.execute("SELECT %s", [n])
                    yield other.fetchone()

    with transaction.atomic():
        many = send.enqueue_many
        assert (len(many(rows(), ids=True)) if ids else many(rows())) == 300
        assert query(COUNT) == [(0,)]
    assert query(COUNT) == [(300,)]


def test_none_opts_out_of_the_block(send: Task[..., None], query: Query) -> None:
    with transaction.atomic():
        send.using(None).enqueue(1)
        assert query(COUNT) == [(1,)]


def test_outside_of_blocks_jobs_are_committed_at_once(send: Task[..., None], query: Query) -> None:
    django.db.connections["default"].ensure_connection()
    send.enqueue(1)
    send.using("default").enqueue(2)
    assert query(COUNT) == [(2,)]


def test_a_block_on_another_alias_counts_too(send: Task[..., None], query: Query) -> None:
    with transaction.atomic(using="lite"), transaction.atomic(using="replica"):
        send.enqueue(1)
        assert query(COUNT) == [(0,)]
    assert query(COUNT) == [(1,)]


def test_an_alias_or_its_connection_can_be_named(send: Task[..., None], connections: Any, query: Query) -> None:
    with transaction.atomic(using="replica"):
        send.using("replica").enqueue(1)
        send.using(connections["replica"]).enqueue(1)
        assert query(COUNT) == [(0,)]
        transaction.set_rollback(rollback=True, using="replica")
    assert query(COUNT) == [(0,)]


def test_a_block_in_another_database_is_left_alone(database: Database, query: Query) -> None:
    elsewhere = App(make_conninfo(database.dsn, dbname="postgres"))
    task: Task[[], None] = elsewhere.task(name="t")(lambda: None)
    with transaction.atomic(), pytest.raises(Exception, match="in database 'postgres' is missing"):
        task.enqueue()
    elsewhere.close()


def test_a_block_that_is_going_to_roll_back_takes_no_jobs(send: Task[..., None]) -> None:
    with transaction.atomic():
        transaction.set_rollback(rollback=True)
        with pytest.raises(transaction.TransactionManagementError, match="until the end of the 'atomic' block"):
            send.enqueue(1)


def test_waiting_inside_the_block_is_refused(send: Task[..., None]) -> None:
    with transaction.atomic():
        job = send.enqueue(1)
        with pytest.raises(Refused, match="inside the transaction that enqueued it"):
            job.wait(1)


def test_what_is_no_postgresql_or_no_database_is_refused(send: Task[..., None]) -> None:
    with pytest.raises(TypeError, match=r"using\('lite'\): this Django database is sqlite"):
        send.using("lite").enqueue(1)
    with pytest.raises(ValueError, match=r"no database of that alias; it has default, lite, replica"):
        send.using("other").enqueue(1)
