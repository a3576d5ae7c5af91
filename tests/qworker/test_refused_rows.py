"""A job that the table refuses: the error says why, and holds no argument of it."""

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from qworker import App, Task
from qworker.migrations import migrate
from tests.database import Database

SECRET = "hunter2"


@pytest.fixture
def picky(empty_database: Database) -> Database:
    """A database whose table takes no argument with the secret."""
    with psycopg.connect(empty_database.dsn, autocommit=True) as conn:
        migrate(conn)
        conn.execute("ALTER TABLE qworker.job ADD CONSTRAINT no_secret CHECK (args::text !~ 'hunter2')")
    return empty_database


@pytest.fixture
def send(picky: Database) -> Iterator[Task[..., None]]:
    app = App(picky.dsn)

    @app.task(name="send")
    def send(text: str) -> None: ...

    yield send
    app.close()


WAYS: dict[str, Callable[[Any], Any]] = {
    "one": lambda send: send.enqueue(SECRET),
    "delayed": lambda send: send.options(delay=60).enqueue(SECRET),
    "unique": lambda send: send.options(unique=True).enqueue(SECRET),
    "many": lambda send: send.enqueue_many([("x",), (SECRET,)]),
    "ids": lambda send: send.enqueue_many([("x",), (SECRET,)], ids=True),
}


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_error_names_the_constraint_and_shows_no_argument(
    send: Task[..., None], picky: Database, way: Callable[[Any], Any], *, joined: bool
) -> None:
    with psycopg.connect(picky.dsn) as conn:
        with pytest.raises(psycopg.errors.CheckViolation, match="violates check constraint") as raised:
            way(send.options(conn=conn) if joined else send)
        error = raised.value
        assert error.sqlstate == "23514"
        assert error.diag.constraint_name == "no_secret"
        assert (error.diag.schema_name, error.diag.table_name) == ("qworker", "job")
        assert SECRET not in "".join(traceback.format_exception(error)) + str(vars(error))
        assert error.diag.message_detail is None
        assert error.diag.context is None
        conn.rollback()


def test_an_error_of_the_callers_own_source_keeps_its_details(send: Task[..., None], picky: Database) -> None:
    with psycopg.connect(picky.dsn) as conn, psycopg.connect(picky.dsn) as other:
        other.execute("CREATE TEMP TABLE mine (id int PRIMARY KEY)")

        def source() -> Iterator[tuple[str]]:
            yield ("x",)
            other.execute("INSERT INTO mine VALUES (7), (7)")

        with pytest.raises(psycopg.errors.UniqueViolation, match=r"Key \(id\)=\(7\) already exists"):
            send.using(conn).enqueue_many(source())
