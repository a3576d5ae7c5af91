"""The transaction of Django's TestCase."""

from collections.abc import Iterator
from typing import Any

import django.db
import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict

from qworker import App, JobState, current_job
from qworker.testing import assert_enqueued, drain
from tests.contrib.django.site import set_up
from tests.database import Database


@pytest.fixture(autouse=True)
def connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    set_up()
    dsn = conninfo_to_dict(database.dsn)
    handler = ConnectionHandler({
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": dsn["dbname"], "USER": dsn["user"],
            "PASSWORD": dsn["password"], "HOST": dsn["host"], "PORT": dsn["port"],
        }
    })  # fmt: skip
    monkeypatch.setattr(django.db, "connections", handler)
    monkeypatch.setattr(transaction, "connections", handler)
    yield handler
    handler.close_all()


@pytest.fixture
def cursor(connections: Any) -> Iterator[Any]:
    """A cursor in a block that is rolled back, as around each test of a TestCase."""
    with transaction.atomic():
        yield connections["default"].cursor()
        transaction.set_rollback(True)


def test_jobs_run_on_the_connection_of_the_test(app: App, cursor: Any, connections: Any) -> None:
    said: list[str] = []

    @app.task(name="welcome")
    def welcome(user: int) -> list[Any]:
        with connections["default"].cursor() as own:
            own.execute("SELECT name FROM person WHERE id = %s", [user])
            (name,) = own.fetchone()
        current_job.connection.execute("UPDATE person SET greeted = true")
        transaction.on_commit(lambda: said.append(name))
        return [name]

    cursor.execute("CREATE TABLE person (id int, name text, greeted boolean)")
    cursor.execute("INSERT INTO person VALUES (1, 'Eve', false)")
    with transaction.atomic():
        welcome.enqueue(1)
    assert_enqueued(welcome, {"user": 1}, count=1)
    assert [a.result for a in drain(app)] == [["Eve"]]
    assert said == ["Eve"], "what waits for the commit is called once"
    cursor.execute("SELECT greeted FROM person")
    assert cursor.fetchone() == (True,)


def test_a_job_is_released_if_what_waits_for_its_commit_fails(app: App, cursor: Any) -> None:
    failures: list[Exception] = [KeyError(), ZeroDivisionError()]

    def fail() -> None:
        raise failures.pop()

    app.task(name="t")(lambda: transaction.on_commit(fail)).enqueue()
    with pytest.raises(ZeroDivisionError):
        drain(app, raise_failures=False)
    with pytest.raises(KeyError):
        drain(app)


def test_a_database_error_leaves_the_block_usable(app: App, cursor: Any, connections: Any) -> None:
    @app.task(name="wrong", retry=False)
    def wrong() -> None:
        transaction.on_commit(lambda: pytest.fail("the attempt has failed"))
        connections["default"].cursor().execute("SELECT 1/0")

    wrong.enqueue()
    (attempt,) = drain(app, raise_failures=False)
    assert (attempt.state, type(attempt.error).__name__) == (JobState.FAILED, "DataError")
    cursor.execute("SELECT 1")
    assert drain(app, using="default") == []


def test_nothing_remains_of_it(app: App, connections: Any) -> None:
    with transaction.atomic():
        app.task(name="t")(lambda: None).enqueue()
        drain(app)
        transaction.set_rollback(True)
    assert list(app.jobs()) == []
