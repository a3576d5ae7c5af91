"""The short way into the database: taken when it can be, and never to another result than the long one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from qworker import App, DatabaseUnavailable, SchemaError
from qworker.db.connection import connect
from qworker.db.prepared import MAX_LOSSES, PreparedStatement
from qworker.db.statements import numbered
from tests.database import Database
from tests.waiting import until


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    app = App(dsn=database.dsn)
    yield app
    app.close()


def statements(app: App) -> list[str]:
    with app.pool.connection() as connection:
        return [
            name for (name,) in connection.execute("SELECT name FROM pg_prepared_statements WHERE name ~ 'qworker'")
        ]


def test_a_plain_job_goes_the_short_way_and_is_the_same_job(app: App, database: Database) -> None:
    @app.task(name="greet", queue="mail", priority=2)
    def greet(name: str) -> None: ...

    short = greet.enqueue("Zoë \\ \"quoted\" 'n' ☃")
    assert len(statements(app)) == 1
    with database.connect() as conn:
        long = greet.using(conn).enqueue("Zoë \\ \"quoted\" 'n' ☃")
    with database.connect() as conn:
        facts = "state, queue, priority, task, args, overrides, tags, attempt"
        rows = conn.execute(f"SELECT {facts} FROM qworker.job ORDER BY id".encode()).fetchall()  # noqa: S608
    assert rows[0] == rows[1]
    assert (short.refresh().args, short.state, short.queue, short.run_at) == (long.args, long.state, long.queue, None)
    assert short.enqueued_at == short.refresh().enqueued_at


def test_what_an_order_says_beyond_that_is_not_lost(app: App, database: Database) -> None:
    @app.task(name="t")
    def task() -> None: ...

    task.options(timeout=7).enqueue()
    task.options(tags=["a,b", '{"']).enqueue()
    with database.connect() as conn:
        rows = conn.execute("SELECT overrides, tags FROM qworker.job ORDER BY id").fetchall()
    assert rows == [({"timeout": 7.0}, None), (None, ["a,b", '{"'])]


def test_a_statement_that_the_session_has_lost_is_prepared_again(app: App) -> None:
    """psycopg sends DEALLOCATE ALL after each rollback."""

    @app.task(name="t")
    def task() -> None: ...

    task.enqueue()
    for _ in range(MAX_LOSSES):
        with app.pool.connection() as connection:
            connection.execute("DEALLOCATE ALL")
        assert task.enqueue().refresh().state == "available"
        assert len(statements(app)) == 1


def test_a_statement_that_is_lost_again_and_again_is_executed_by_a_cursor(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may give each transaction to another session. Losses that are rare are none of a pooler's."""

    @app.task(name="t")
    def task() -> None: ...

    def lose(times: int) -> list[str]:
        for _ in range(times):
            with app.pool.connection() as connection:
                connection.execute("DEALLOCATE ALL")
            assert task.enqueue().refresh().state == "available"
        return statements(app)

    task.enqueue()
    with monkeypatch.context() as patched:
        patched.setattr("qworker.db.prepared.LOSS_INTERVAL", 0.0)
        assert len(lose(MAX_LOSSES + 1)) == 1
    assert lose(MAX_LOSSES + 1) == []


def test_a_statement_that_is_lost_in_a_transaction_fails_as_the_transaction_does(database: Database) -> None:
    with database.connect() as connection:
        statement = PreparedStatement("SELECT 1")
        assert statement.send(connection, []) == [b"\0\0\0\1"]
        connection.autocommit = False
        connection.execute("DEALLOCATE ALL")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            statement.fetch(connection, {}, tuple)
        connection.rollback()
        assert statement.fetch(connection, {}, tuple) == [(1,)]


def test_two_may_prepare_it_on_one_connection(database: Database) -> None:
    with database.connect() as connection:
        for _ in range(2):
            assert PreparedStatement("SELECT $1::int + $2::int + $1::int").send(connection, [b"1", b"5"]) == [
                b"\0\0\0\7"
            ]


def test_a_refusal_is_explained_as_ever(app: App, empty_database: Database) -> None:
    elsewhere = App(dsn=empty_database.dsn)

    @elsewhere.task(name="t")
    def task() -> None: ...

    try:
        with pytest.raises(SchemaError, match="qworker db migrate"):
            task.enqueue()
    finally:
        elsewhere.close()


def test_a_connection_that_is_lost_meanwhile_is_an_error_of_the_database(app: App, database: Database) -> None:
    @app.task(name="t")
    def task() -> None: ...

    task.enqueue()
    with app.pool.connection() as connection:
        pid = connection.info.backend_pid
    with database.connect() as conn, ThreadPoolExecutor() as pool, conn.transaction():
        conn.execute("LOCK TABLE qworker.job")
        enqueueing = pool.submit(task.enqueue)
        waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        until(lambda: conn.execute(waiting, (pid,)).fetchone() == (True,))
        conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(DatabaseUnavailable):
            enqueueing.result(10)
    assert task.enqueue().refresh().state == "available"


QUESTION = "SELECT n, %(text)s || '%%', %(more)s::int + n FROM generate_series(1, %(more)s::int) AS n"


def test_names_become_numbers_in_the_order_of_their_appearance() -> None:
    assert numbered(QUESTION) == (
        "SELECT n, $1 || '%', $2::int + n FROM generate_series(1, $2::int) AS n",
        ["text", "more"],
    )


@pytest.mark.parametrize("encoding", ["utf8", "latin1"])
def test_rows_are_the_same_on_both_ways(database: Database, encoding: str) -> None:
    with connect(make_conninfo(database.dsn, client_encoding=encoding), "test") as conn:
        express = PreparedStatement(QUESTION)
        for _ in range(2):
            assert express.fetch(conn, {"text": "Zoë", "more": 2}, tuple) == [(1, "Zoë%", 3), (2, "Zoë%", 4)]
            conn.execute("DEALLOCATE ALL")
        assert express.fetch(conn, {"text": "", "more": 0}, tuple) == []


def test_an_error_is_the_one_a_cursor_would_raise_and_the_connection_goes_on(database: Database) -> None:
    with connect(database.dsn, "test", statement_timeout=0.2) as conn:
        slow = PreparedStatement("SELECT pg_sleep(%(seconds)s::int)::text")
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            slow.fetch(conn, {"seconds": 20}, tuple)
        assert slow.fetch(conn, {"seconds": 0}, tuple) == [("",)]
        with pytest.raises(psycopg.errors.UndefinedTable):
            PreparedStatement("SELECT 1 FROM nowhere").fetch(conn, {}, tuple)


def test_a_connection_that_is_lost_says_so(database: Database) -> None:
    express = PreparedStatement(QUESTION)
    with connect(database.dsn, "test") as conn, database.connect() as other:
        express.fetch(conn, {"text": "", "more": 1}, tuple)
        other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                express.fetch(conn, {"text": "", "more": 1}, tuple)
        assert conn.closed
