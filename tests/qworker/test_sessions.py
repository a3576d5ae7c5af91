"""What a role, a database or an environment sets for every session does not change what our statements do."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from qworker import App, SchemaError, Task
from qworker.claims import Claims
from qworker.db import pgbouncer
from qworker.db.connection import connect, read_only
from qworker.db.encoding import escape_unstorable
from qworker.migrations import check, encoding_warning, migrate
from qworker.recovery import Recovery
from tests.database import Database

Postgres = psycopg.Connection[Any]


@pytest.fixture
def admin(postgresql: Postgres) -> Postgres:
    postgresql.autocommit = True
    return postgresql


@pytest.fixture
def dsn(admin: Postgres) -> str:
    return make_conninfo(admin.info.dsn, password=admin.info.password)


@pytest.fixture
def send(dsn: str) -> Iterator[Task[..., None]]:
    app = App(dsn)

    @app.task(name="send")
    def send(text: object) -> None: ...

    yield send
    app.close()


def alter(admin: Postgres, setting: str) -> None:
    admin.execute(f"ALTER DATABASE {admin.info.dbname} {setting}".encode())


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_our_sessions_are_read_committed_whatever_the_databases_default(
    admin: Postgres, dsn: str, send: Task[..., None], level: str
) -> None:
    alter(admin, f"SET default_transaction_isolation = '{level}'")
    with connect(dsn, "test") as conn:
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    with connect(dsn, "test") as pooled:  # as behind a pgbouncer, whose sessions are somebody else's
        pooled.execute(f"SET default_transaction_isolation = '{level}'".encode())
        pooled.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        pgbouncer.send_settings_with_each_statement(pooled, {"timezone": "UTC"})
        assert pooled.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
        with pooled.transaction():
            assert pooled.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    assert send.enqueue_many([(1,)]) == 1


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_jobs_join_transactions_of_any_isolation(
    dsn: str, send: Task[..., None], level: psycopg.IsolationLevel
) -> None:
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = level
        conn.execute("SELECT count(*) FROM qworker.job")
        send.using(conn).enqueue(1)
        send.using(conn).enqueue_many([(2,), (3,)])
        first = send.using(conn).options(unique=True).enqueue(4)
        assert send.using(conn).options(unique=True).enqueue(4).id == first.id
        conn.commit()
        assert conn.execute("SELECT count(*) FROM qworker.job").fetchone() == (4,)


def test_a_key_that_a_snapshot_cannot_see_is_a_serialization_failure(dsn: str, send: Task[..., None]) -> None:
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("SELECT count(*) FROM qworker.unique_key")
        send.options(unique=True).enqueue(4)
        with pytest.raises(psycopg.errors.SerializationFailure):
            send.using(conn).options(unique=True).enqueue(4)


def test_a_read_only_window_is_over_when_it_is_over(admin: Postgres, send: Task[..., None]) -> None:
    alter(admin, "SET default_transaction_read_only = on")
    for _ in range(3):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            send.enqueue(1)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        send.enqueue_many([(1,)])
    alter(admin, "RESET default_transaction_read_only")
    send.enqueue(1)
    send.enqueue_many([(1,)])


def test_a_refused_write_closes_the_unused_connections_too(admin: Postgres, dsn: str, send: Task[..., None]) -> None:
    alter(admin, "SET default_transaction_read_only = on")
    app = App(dsn)
    with app.pool.connection() as one, app.pool.connection() as two:
        assert read_only(one)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), app.pool.connection() as conn:
        conn.execute("CREATE TABLE mine ()")
    assert one.closed
    assert two.closed


def test_a_session_that_takes_writes_is_not_read_only(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        assert read_only(conn) is None


@pytest.mark.parametrize("encoding", ["latin1", "SQL_ASCII"])
def test_our_sessions_are_utf8_whatever_the_environment_says(
    dsn: str, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    app = App(make_conninfo(dsn, client_encoding=encoding))

    @app.task(name="t", queue="☃")
    def task(text: str) -> None: ...

    try:
        assert task.enqueue("Zoë 🎉").refresh().args == {"text": "Zoë 🎉"}
        assert task.enqueue_many([("Zoë 🎉",)]) == 1
    finally:
        app.close()


@pytest.mark.parametrize("encoding", ["latin1", "SQL_ASCII"])
def test_the_callers_encoding_is_no_matter_or_refused_before_anything_is_stored(
    admin: Postgres, dsn: str, send: Task[..., None], encoding: str
) -> None:
    with psycopg.connect(dsn, client_encoding=encoding) as conn:
        if encoding == "SQL_ASCII":
            for call in (send.using(conn).enqueue, lambda text: send.using(conn).enqueue_many([(text,)])):
                with pytest.raises(TypeError, match=r"client_encoding is SQL_ASCII.*SET client_encoding TO 'UTF8'"):
                    call("a")
        else:
            send.using(conn).enqueue({"Zoë": "🎉\\u0041"})
            send.using(conn).options(unique=True).enqueue({"Zoë": "🎉\\u0041"})
            send.using(conn).enqueue_many([({"Zoë": "🎉\\u0041"},)])
    rows = admin.execute("SELECT args -> 'text' FROM qworker.job").fetchall()
    assert rows == ([({"Zoë": "🎉\\u0041"},)] * 3 if encoding == "latin1" else [])


@pytest.fixture
def encoded(postgres_server: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"in_{request.param.lower()}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as conn:
        conn.execute(
            f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0".encode()
        )
    database = Database(make_conninfo(postgres_server.dsn, dbname=name))
    yield database.dsn
    database.drop(postgres_server)


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_a_database_in_sql_ascii_is_named_by_migrate_and_check(encoded: str) -> None:
    with connect(encoded, "test") as conn:
        for look in (migrate, check):
            with pytest.raises(SchemaError, match=r"encoding SQL_ASCII.*ENCODING 'UTF8'"):
                look(conn)


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_a_database_in_another_encoding_is_warned_of(encoded: str) -> None:
    with psycopg.connect(encoded, autocommit=True) as conn:
        migrate(conn)
        check(conn)
        assert "the encoding LATIN1" in str(encoding_warning(conn))


@pytest.mark.parametrize("encoded", ["LATIN1", "EUC_JP"], indirect=True)
def test_what_a_server_cannot_store_is_spelt_out_and_keeps_no_job_from_its_end(encoded: str) -> None:
    with connect(encoded, "test") as conn:
        conn.prepare_threshold = None  # a migration is many commands in one text
        migrate(conn)
        conn.prepare_threshold = 0
        app, claims = App(encoded), Claims()

        @app.task(name="t")
        def task(n: int) -> None: ...

        jobs = [task.enqueue(n).id for n in range(6)]
        claims.claim(conn, node=1, token=1, queues=["default"], priorities=[5], cursors=[0], limit=6)
        error = {"type": "ValueError", "message": 'no \\ "🎉" \u0001', "traceback": ""}
        results = json.dumps({str(jobs[0]): ['no \\ "🎉"', 1.5]}, ensure_ascii=False)
        assert claims.acknowledge(conn, 1, [jobs[0]], results=results) == [jobs[0]]
        with conn.transaction():
            assert claims.complete(conn, 1, jobs[1], duration=1.0, result='"🎉"')
        for text, job in ((json.dumps(error), jobs[2]), (json.dumps(error, ensure_ascii=False), jobs[3])):
            assert claims.progress(conn, 1, job, text) == [job]
            assert claims.fail(conn, 1, job, error=text, hook=False) == {job: "failed"}
        assert claims.retry(conn, 1, jobs[4], delay=9.0, error=json.dumps(error)) == {jobs[4]: "scheduled"}
        assert Recovery().record_crash(conn, 1, jobs[5], delay=9.0, error=json.dumps(error))
        assert app.job(jobs[0]).result == ['no \\ "\\U0001f389"', 1.5]
        assert app.job(jobs[1]).result == "\\U0001f389"
        for job in jobs[2:]:
            assert app.job(job).errors[0]["message"] == 'no \\ "\\U0001f389" \u0001'
        with pytest.raises(psycopg.errors.UntranslatableCharacter):
            task.options(tags=["🎉"]).enqueue(1)
        app.close()


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_what_a_server_can_store_is_stored_as_it_is(encoded: str) -> None:
    with connect(encoded, "test") as conn:
        assert escape_unstorable(conn, '{"é": "\\u00e9 🎉"}') == '{"é": "é \\\\U0001f389"}'
        assert escape_unstorable(conn, '"1\\u0001é"') == '"1\\u0001é"'
