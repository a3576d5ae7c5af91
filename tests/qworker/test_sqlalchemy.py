"""Jobs in the transactions of SQLAlchemy."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qworker import App, Task
from tests.database import Database
from tests.qworker.conftest import Query

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int) -> None: ...

    return send


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.dsn))
    yield engine
    engine.dispose()


def sessions(engine: Engine) -> Any:
    return Session(engine)


def scoped_sessions(engine: Engine) -> Any:
    return scoped_session(sessionmaker(engine))


def connections(engine: Engine) -> Any:
    return engine.connect()


@pytest.mark.parametrize("make", [sessions, scoped_sessions, connections])
def test_sqlalchemy_commits_and_rolls_back_jobs(
    send: Task[..., None], engine: Engine, query: Query, make: Callable[[Engine], Any]
) -> None:
    work = make(engine)
    send.using(work).enqueue(1)
    work.execute(sqlalchemy.text("SELECT 1"))
    send.using(work).enqueue_many([(2,), (3,)])
    assert query(COUNT) == [(0,)]
    work.rollback()
    assert query(COUNT) == [(0,)]
    send.using(work).enqueue(1)
    work.commit()
    assert query(COUNT) == [(1,)]
    work.close()


def test_sqlalchemys_nested_transaction_takes_its_jobs_with_it(
    send: Task[..., None], engine: Engine, query: Query
) -> None:
    with sessions(engine) as session, session.begin():
        send.using(session).enqueue(1)
        with session.begin_nested() as nested:
            send.using(session).enqueue(2)
            nested.rollback()
    assert query("SELECT args FROM qworker.job") == [({"n": 1},)]


def test_sqlalchemy_begins_blocks_that_only_enqueue(send: Task[..., None], engine: Engine, query: Query) -> None:
    with engine.begin() as conn:
        send.using(conn).enqueue(1)
    assert query(COUNT) == [(1,)]
    with engine.connect() as conn:
        send.using(conn).enqueue(2)
    assert query(COUNT) == [(1,)], "SQLAlchemy rolls back what nobody committed"


def test_an_engine_is_no_transaction(send: Task[..., None], engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"SQLAlchemy's sqlalchemy\.engine\.base\.Engine; pass engine\.connect"):
        send.using(engine).enqueue(1)


def test_another_driver_below_sqlalchemy_is_refused(send: Task[..., None]) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as conn, pytest.raises(TypeError, match=r"uses sqlite3 here.*postgresql\+psycopg://"):
        send.using(conn).enqueue(1)
    engine.dispose()


def test_a_streaming_query_of_the_same_session_may_be_the_source(
    send: Task[..., None], engine: Engine, query: Query
) -> None:
    with Session(engine) as session, session.begin():
        stream = session.connection().execution_options(yield_per=2)
        rows = stream.execute(sqlalchemy.text("SELECT generate_series(1, 30)"))
        nested = (tuple(session.execute(sqlalchemy.text("SELECT :n"), {"n": row[0]}).one()) for row in rows)
        assert send.using(session).enqueue_many(nested) == 30
    assert query(COUNT) == [(30,)]
