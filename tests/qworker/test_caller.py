"""Enqueueing on the caller's connection: jobs share the fate of the caller's work."""

import asyncio
import sys
from typing import Any

import psycopg
import pytest
from psycopg.rows import class_row, dict_row

from qworker import App, Task
from tests.database import Database
from tests.qworker.conftest import Query

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int) -> None: ...

    return send


# --- psycopg


def test_a_commit_makes_the_job_and_a_rollback_does_not(
    send: Task[..., None], database: Database, query: Query
) -> None:
    conn = database.connect(autocommit=False)
    send.using(conn).enqueue(1)
    assert query(COUNT) == [(0,)]
    conn.rollback()
    assert query(COUNT) == [(0,)]
    send.using(conn).enqueue(2)
    conn.commit()
    assert query(COUNT) == [(1,)]


def test_a_savepoint_takes_its_jobs_with_it(send: Task[..., None], database: Database, query: Query) -> None:
    conn = database.connect()
    with conn.transaction():
        send.using(conn).enqueue(1)
        with conn.transaction(force_rollback=True):
            send.using(conn).enqueue(2)
            send.using(conn).enqueue_many([(3,)])
    assert query("SELECT args FROM qworker.job") == [({"n": 1},)]


def test_autocommit_commits_at_once(send: Task[..., None], database: Database, query: Query) -> None:
    send.using(database.connect()).enqueue(1)
    assert query(COUNT) == [(1,)]


@pytest.mark.parametrize(
    "change",
    [
        {"row_factory": dict_row},
        {"row_factory": class_row(dict)},
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"prepare_threshold": None},
        {"prepare_threshold": 0},
        {"options": "-c timezone=Asia/Kolkata -c datestyle=German -c search_path=pg_temp"},
        {"client_encoding": "latin1"},
    ],
)
def test_it_does_not_matter_how_the_callers_connection_is_set_up(
    send: Task[..., None], database: Database, query: Query, change: dict[str, Any]
) -> None:
    conn = database.connect(autocommit=False, **change)
    job = send.using(conn).options(tags=["é"]).enqueue(1)
    send.using(conn).options(delay=60).enqueue(2)
    unique = send.using(conn).options(unique="k")
    assert unique.enqueue(3).duplicate is False
    assert unique.enqueue(3).tags == ()
    send.using(conn).options(tags=["é"]).enqueue_many([(4,), ("é",)], ids=True)
    send.using(conn).options(delay=60).enqueue_many([(5,)])
    conn.commit()
    assert job.refresh() == job
    assert query(COUNT) == [(6,)]
    assert query("SELECT count(*) FROM qworker.job WHERE tags = '{é}'") == [(3,)]
    assert query("SELECT run_at - enqueued_at BETWEEN '59s' AND '61s' FROM qworker.job WHERE state = 'scheduled'") == [
        (True,), (True,)
    ]  # fmt: skip


def test_a_pipeline_carries_jobs(send: Task[..., None], database: Database, query: Query) -> None:
    conn = database.connect()
    with conn.pipeline(), conn.transaction():
        conn.execute("SELECT 1")
        first = send.using(conn).enqueue(1)
        second = send.using(conn).enqueue(2)
    assert first.id < second.id
    assert query(COUNT) == [(2,)]


def test_none_means_a_connection_of_its_own(send: Task[..., None], database: Database, query: Query) -> None:
    send.using(database.connect(autocommit=False)).using(None).enqueue(1)
    assert query(COUNT) == [(1,)]


# --- what has no connection in it


class Imitation:
    """An object that claims to come from some library."""


def imitation(module: str, **attributes: Any) -> Any:
    return type("Connection", (Imitation,), {"__module__": module, **attributes})()


@pytest.mark.parametrize(
    ("conn", "message"),
    [
        (3, r"takes a psycopg Connection, a SQLAlchemy .*, not 3"),
        (object(), "not builtins.object"),
        (imitation("psycopg2.extensions"), r"not psycopg2\.extensions\.Connection"),
        (imitation("asyncpg.connection"), r"await task\.aenqueue"),
        (
            imitation("sqlalchemy.ext.asyncio.session", run_sync=None),
            r"SQLAlchemy's asynchronous .*await \.using\(\.\.\.\)\.aenqueue",
        ),
    ],
)
def test_what_carries_no_transaction_is_refused_with_the_way_out(
    send: Task[..., None], conn: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        send.using(conn).enqueue(1)


def test_an_alias_without_django_is_refused(send: Task[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    with pytest.raises(TypeError, match=r"using\('default'\) means a Django database, but Django is not in use here"):
        send.using("default").enqueue(1)


def test_an_asynchronous_connection_is_refused(send: Task[..., None], database: Database) -> None:
    async def use() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn) as conn:
            send.using(conn).enqueue(1)

    with pytest.raises(TypeError, match=r"asynchronous psycopg\.AsyncConnection"):
        asyncio.run(use())
