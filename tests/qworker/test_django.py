"""Jobs in the transactions of Django: the running atomic() block is the default."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django.db
import psycopg
import psycopg2  # type: ignore[import-untyped]
import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker import App, InvalidOperation, JobCancelled, JobNotFound, SchemaError, Task, ambient
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.contrib.django.site import set_up
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int) -> None: ...

    return send


@pytest.fixture(autouse=True)
def connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Django's databases: the test's as `default` and `replica`, and an SQLite beside it."""
    set_up()
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


def test_a_block_over_psycopg2_takes_no_jobs_and_says_so(
    send: Task[..., None], database: Database, connections: Any, query: Query
) -> None:
    job, wrapper = send.enqueue(1), connections["default"]
    with transaction.atomic():
        own, wrapper.connection = wrapper.connection, psycopg2.connect(database.dsn)
        try:
            with pytest.raises(TypeError, match=r"Django uses psycopg2 here.*on_commit.*conn=None"):
                send.enqueue(2)
            with pytest.raises(TypeError, match="psycopg2"):
                send.enqueue_many([(2,)])
            assert job.refresh().state == "available"
            send.using(None).enqueue(3)
        finally:
            wrapper.connection.close()
            wrapper.connection = own
    assert query(COUNT) == [(2,)]


def test_a_block_over_psycopg2_in_another_database_is_left_alone(
    database: Database, connections: Any, query: Query
) -> None:
    app, wrapper = App(make_conninfo(database.dsn, dbname="elsewhere")), connections["default"]
    with transaction.atomic():
        own, wrapper.connection = wrapper.connection, psycopg2.connect(database.dsn)
        try:
            assert app.admin._ambient.caller() is None
        finally:
            wrapper.connection.close()
            wrapper.connection = own


def test_a_block_that_is_going_to_roll_back_takes_no_jobs(send: Task[..., None]) -> None:
    with transaction.atomic():
        transaction.set_rollback(rollback=True)
        with pytest.raises(transaction.TransactionManagementError, match="until the end of the 'atomic' block"):
            send.enqueue(1)


def test_waiting_inside_the_block_is_refused(send: Task[..., None]) -> None:
    with transaction.atomic():
        job = send.enqueue(1)
        with pytest.raises(InvalidOperation, match="inside the transaction that enqueued it"):
            job.wait(1)


def test_what_is_no_postgresql_or_no_database_is_refused(send: Task[..., None]) -> None:
    with pytest.raises(TypeError, match=r"using\('lite'\): this Django database is sqlite"):
        send.using("lite").enqueue(1)
    with pytest.raises(ValueError, match=r"no database of that alias; it has default, lite, replica"):
        send.using("other").enqueue(1)


def test_what_is_done_to_a_job_inside_a_block_belongs_to_the_block(
    send: Task[..., None], app: App, query: Query
) -> None:
    with transaction.atomic():
        job = send.enqueue(1)
        assert app.job(job.id).refresh() == job.refresh()
        assert app.job(job.id).cancel()
        assert job.refresh().state == "cancelled"
    assert job.refresh().state == "cancelled"
    kept = send.enqueue(2)
    with transaction.atomic():
        assert kept.cancel()
        assert query("SELECT state::text FROM qworker.job") == [("available",)]
        transaction.set_rollback(True)
    assert app.job(kept.id).state == "available"


@pytest.mark.parametrize(("verb", "ends"), [("retry", "available"), ("discard", "discarded")])
def test_failed_jobs_are_settled_with_the_block(
    send: Task[..., None], query: Query, fake_worker: FakeWorker, verb: str, ends: str
) -> None:
    job = send.enqueue(1)
    fake_worker.claim()
    fake_worker.fail(job.id)
    with transaction.atomic():
        assert getattr(job, verb)()
        transaction.set_rollback(True)
    assert job.refresh().state == "failed"
    with transaction.atomic():
        assert getattr(job, verb)()
        assert job.refresh().state == ends
        assert query("SELECT state::text FROM qworker.jobs") == [("failed",)]
    assert job.refresh().state == ends


def test_a_job_that_is_not_committed_is_not_waited_for_and_not_found_elsewhere(
    send: Task[..., None], app: App, database: Database
) -> None:
    elsewhere = App(database.dsn)
    with transaction.atomic():
        job = send.enqueue(1)
        with pytest.raises(InvalidOperation, match="would never return"):
            app.job(job.id).wait()
        with ThreadPoolExecutor() as threads, pytest.raises(JobNotFound, match="not committed yet"):
            threads.submit(elsewhere.job, job.id).result()
    elsewhere.close()


def test_reading_inside_a_block_sees_the_jobs_of_the_block(send: Task[..., None], app: App) -> None:
    committed = send.enqueue(1)
    with transaction.atomic():
        ours = send.enqueue(2)
        found = app.admin.find()
        assert [job.id for job in found] == [ours.id, committed.id]
        assert found[0].cancel(), "and what was read belongs to the block"
        assert [job.id for job in app.admin.find(state="available")] == [committed.id]
        assert [job.id for job in app.admin.find(conn=None)] == [committed.id]
        assert [job.id for job in app.admin.find(conn="default")] == [ours.id, committed.id]
        assert app.job(ours.id, conn="default").state == "cancelled"
        with pytest.raises(JobNotFound):
            app.job(ours.id, conn=None)
        with pytest.raises(JobCancelled):
            ours.wait()
        with pytest.raises(JobCancelled):
            app.job(ours.id).wait()
        transaction.set_rollback(True)
    assert [job.id for job in app.admin.find()] == [committed.id]


def test_without_autocommit_each_statement_is_in_a_transaction(
    send: Task[..., None], connections: Any, query: Query
) -> None:
    connections["default"].ensure_connection()
    transaction.set_autocommit(False)
    send.enqueue(1)
    assert query(COUNT) == [(0,)]
    transaction.rollback()
    send.enqueue(2)
    transaction.commit()
    transaction.set_autocommit(True)
    assert query("SELECT args FROM qworker.job") == [({"n": 2},)]


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    """Another server with a database of the same name as the test's."""
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("CREATE DATABASE qworker_shared")
        dsn = make_conninfo(server.dsn, dbname="qworker_shared")
        with psycopg.connect(dsn) as conn:
            migrate(conn)
        yield dsn


def on(connections: Any, dsn: str) -> Any:
    """Have Django's database `replica` lead to another server."""
    parts = conninfo_to_dict(dsn)
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    connections["replica"].settings_dict.update({name: parts[key] for name, key in names.items()})
    return transaction.atomic(using="replica")


def test_a_database_of_the_same_name_on_another_server_is_another(
    send: Task[..., None], connections: Any, query: Query, other_server: str
) -> None:
    with on(connections, other_server):
        with pytest.warns(RuntimeWarning, match="'replica' is in 'qworker_shared'") as reported:
            send.enqueue(1)
        assert reported[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            send.enqueue(2)
    assert query(COUNT) == [(2,)]
    with psycopg.connect(other_server) as conn:
        assert conn.execute(COUNT).fetchone() == (0,)


def test_an_address_in_the_environment_of_libpq_names_a_server_as_well(
    connections: Any, database: Database, other_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = conninfo_to_dict(database.dsn)
    for name in ("QWORKER_DSN", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, key in {"PGHOSTADDR": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}.items():
        monkeypatch.setenv(name, str(parts[key]))
    app = App()
    send = app.task(name="send")(lambda: None)
    with (
        on(connections, other_server),
        pytest.warns(RuntimeWarning, match="'replica' is in"),
        pytest.raises(SchemaError),  # of the database that is named like the user
    ):
        send.enqueue()
    app.close()


def test_one_server_under_two_names_is_one_and_asked_once(
    send: Task[..., None], app: App, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def identity(conn: Any) -> Any:
        nonlocal asked
        asked += 1
        return found(conn)

    found = ambient._identity
    monkeypatch.setattr(ambient, "_identity", identity)
    parts = conninfo_to_dict(str(app.dsn))
    assert parts["host"] == "127.0.0.1"
    app.pool.dsn = make_conninfo(str(app.dsn), host="localhost")
    for n in range(3):
        with transaction.atomic():
            send.enqueue(n)
            assert query(COUNT) == [(n,)]
    assert asked == 2, "once on each of the two"


def test_a_broken_transaction_of_the_caller_is_reported_as_ever(
    send: Task[..., None], app: App, connections: Any
) -> None:
    app.pool.dsn = make_conninfo(str(app.dsn), host="localhost")
    connections["default"].ensure_connection()
    with transaction.atomic():
        with pytest.raises(psycopg.Error):
            connections["default"].connection.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            send.enqueue(1)
        transaction.set_rollback(True)
