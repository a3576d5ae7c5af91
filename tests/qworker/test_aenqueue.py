"""Enqueueing from coroutines: on asynchronous connections, or in a thread."""

import asyncio
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qworker import App, JobState, PayloadTooLarge, SchemaError, Task
from tests.database import Database
from tests.qworker.conftest import Query
from tests.qworker.drivers import url

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: Any) -> None: ...

    return send


def test_without_a_connection_the_job_is_committed_at_once(send: Task[..., None], query: Query) -> None:
    job = asyncio.run(send.aenqueue(1))
    assert (job.state, job.refresh().args) == (JobState.AVAILABLE, {"n": 1})
    assert query(COUNT) == [(1,)]


def test_jobs_join_the_transaction_of_an_asynchronous_connection(
    send: Task[..., None], database: Database, query: Query
) -> None:
    async def enqueue() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn, row_factory=dict_row) as conn:
            async with conn.transaction():
                first = await send.using(conn).options(delay=60, tags=["é"], priority=1).aenqueue("→")
                assert (first.state, first.tags, first.priority) == (JobState.SCHEDULED, ("é",), 1)
                assert query(COUNT) == [(0,)]
                async with conn.transaction(force_rollback=True):
                    await send.using(conn).aenqueue(2)
            assert query("SELECT args FROM qworker.job") == [({"n": "→"},)]
            unique = send.using(conn).options(unique="k")
            held = await unique.aenqueue(3)
            again = await unique.aenqueue(4)
            assert (again.id, again.duplicate, again.state) == (held.id, True, JobState.AVAILABLE)
            await conn.rollback()

    asyncio.run(enqueue())
    assert query(COUNT) == [(1,)]


def test_jobs_join_the_transaction_of_an_asynchronous_session(
    send: Task[..., None], database: Database, query: Query
) -> None:
    async def enqueue() -> None:
        engine = create_async_engine(url(database.dsn, "psycopg"))
        async with AsyncSession(engine) as session:
            await send.using(session).aenqueue(1)
            await session.execute(sqlalchemy.text("SELECT 1"))
            assert query(COUNT) == [(0,)]
            await session.rollback()
            await send.using(session).aenqueue(2)
            await session.commit()
        async with engine.begin() as conn:
            await send.using(conn).aenqueue(3)
        await engine.dispose()

    asyncio.run(enqueue())
    assert query("SELECT args ->> 'n' FROM qworker.job ORDER BY id") == [("2",), ("3",)]


def test_a_synchronous_connection_is_used_in_a_thread(send: Task[..., None], database: Database, query: Query) -> None:
    conn = database.connect(autocommit=False)
    asyncio.run(send.using(conn).aenqueue(1))
    assert query(COUNT) == [(0,)]
    conn.commit()
    assert query(COUNT) == [(1,)]


def test_the_errors_are_the_same(send: Task[..., None], database: Database, empty_database: Database) -> None:
    async def enqueue(dsn: str, argument: Any) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await send.using(conn).aenqueue(argument)

    with pytest.raises(PayloadTooLarge):
        asyncio.run(enqueue(database.dsn, "x" * 300_000))
    with pytest.raises(TypeError, match="JSON serializable"):
        asyncio.run(enqueue(database.dsn, object()))
    with pytest.raises(SchemaError, match="qworker db migrate"):
        asyncio.run(enqueue(empty_database.dsn, 1))
