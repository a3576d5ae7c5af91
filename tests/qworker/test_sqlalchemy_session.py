"""SQLAlchemy's sessions as the ambient transaction, transactions that are prepared, and Flask-SQLAlchemy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qworker import App, JobState, Task
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.conftest import Query
from tests.qworker.drivers import DRIVERS, url

COUNT = "SELECT count(*) FROM qworker.job"


def declare(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int = 0) -> None: ...

    return send


@pytest.fixture
def send(app: App) -> Task[..., None]:
    return declare(app)


@pytest.fixture(params=DRIVERS)
def engine(database: Database, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(url(database.dsn, request.param))
    yield engine
    engine.dispose()


# --- transactions that are prepared


@pytest.fixture(scope="module")
def two_phase_server() -> Iterator[str]:
    with EmbeddedPostgres({"max_prepared_transactions": 10}) as server:
        with psycopg.connect(server.dsn) as conn:
            migrate(conn)
            # An idle node: every enqueue would send a NOTIFY, after which PostgreSQL prepares nothing.
            conn.execute(
                "INSERT INTO qworker.node (id, lease_seconds, worker_count, name, version, queues)"
                " VALUES (1, 30, 1, 'idle', '0', '{default}')"
            )
            conn.execute("INSERT INTO qworker.idle_node VALUES (1, '{default}')")
        yield server.dsn


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_transaction_with_jobs_is_prepared_and_committed(two_phase_server: str, driver: str) -> None:
    app = App(two_phase_server)
    send = declare(app)
    engine = sqlalchemy.create_engine(url(two_phase_server, driver))
    with engine.connect() as conn:
        with conn.begin_twophase() as transaction:
            job = send.using(conn).enqueue(1)
            send.using(conn).enqueue_many([(2,), (3,)])
            send.using(conn).options(unique=driver).enqueue(4)
            transaction.prepare()
            transaction.commit()
        assert job.refresh().state == JobState.AVAILABLE
        with conn.begin_twophase() as transaction:
            gone = send.using(conn).enqueue(5)
            transaction.prepare()
            transaction.rollback()
    with Session(engine, twophase=True) as session:
        last = send.using(session).enqueue(6)
        session.commit()
    assert last.refresh().state == JobState.AVAILABLE
    with pytest.raises(LookupError):
        app.job(gone.id)
    engine.dispose()
    app.close()


def test_a_two_phase_transaction_of_psycopg_takes_jobs(two_phase_server: str) -> None:
    app = App(two_phase_server)
    send = declare(app)
    with psycopg.connect(two_phase_server) as conn:
        conn.tpc_begin("mine")
        job = send.using(conn).enqueue(1)
        send.using(conn).enqueue_many([(2,)])
        conn.tpc_prepare()
        conn.tpc_commit()
    assert job.refresh().state == JobState.AVAILABLE
    app.close()


# --- the ambient session


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_session_in_another_database_is_not_joined(
    database: Database, query: Query, two_phase_server: str, driver: str
) -> None:
    """No worker of the application would find a job there."""
    engine = sqlalchemy.create_engine(url(two_phase_server, driver))
    with Session(engine) as session, closing(App(database.dsn, session=lambda: session)) as app:
        send = declare(app)
        session.execute(sqlalchemy.text("DELETE FROM qworker.job"))
        with pytest.warns(RuntimeWarning, match="the application's session is in .* database") as reported:
            job = send.enqueue(1)
        assert reported[0].filename == __file__
        assert session.execute(sqlalchemy.text(COUNT)).scalar_one() == 0
        assert send.using(session).enqueue(2).refresh().state == JobState.AVAILABLE
        session.rollback()
    assert query("SELECT id FROM qworker.job") == [(job.id,)]
    engine.dispose()


@pytest.fixture
def registry(engine: Engine) -> Iterator[Any]:
    registry = scoped_session(sessionmaker(engine))
    yield registry
    registry.remove()


@pytest.fixture
def ambient(database: Database, registry: Any) -> Iterator[Task[..., None]]:
    app = App(database.dsn, session=lambda: registry)
    yield declare(app)
    app.close()


def test_the_session_of_the_application_is_joined(ambient: Task[..., None], registry: Any, query: Query) -> None:
    registry.execute(sqlalchemy.text("SELECT 1"))
    job = ambient.enqueue(1)
    ambient.enqueue_many([(2,)])
    assert query(COUNT) == [(0,)]
    assert job.refresh().state == JobState.AVAILABLE
    registry.rollback()
    assert query(COUNT) == [(0,)]
    registry.execute(sqlalchemy.text("SELECT 1"))
    ambient.enqueue(1)
    registry.commit()
    assert query(COUNT) == [(1,)]


def test_a_session_outside_of_a_transaction_is_not_joined(
    ambient: Task[..., None], registry: Any, query: Query
) -> None:
    ambient.enqueue(1)
    assert query(COUNT) == [(1,)]
    assert not registry().in_transaction()


def test_none_opts_out_of_the_session(ambient: Task[..., None], registry: Any, query: Query) -> None:
    registry.execute(sqlalchemy.text("SELECT 1"))
    ambient.using(None).enqueue(1)
    registry.rollback()
    assert query(COUNT) == [(1,)]


def test_a_savepoint_of_the_session_takes_its_jobs_with_it(
    ambient: Task[..., None], registry: Any, query: Query
) -> None:
    with registry.begin():
        ambient.enqueue(1)
        nested = registry.begin_nested()
        ambient.enqueue(2)
        nested.rollback()
        ambient.enqueue(3)
        registry.begin_nested().commit()
    assert query("SELECT args ->> 'n' FROM qworker.job ORDER BY id") == [("1",), ("3",)]


def test_no_session_is_no_transaction(database: Database, query: Query) -> None:
    app = App(database.dsn, session=lambda: None)
    task = declare(app)
    task.enqueue()
    assert query(COUNT) == [(1,)]
    app.close()


def test_an_error_of_the_function_is_raised(database: Database) -> None:
    def broken() -> Any:
        raise RuntimeError("no session today")

    app = App(database.dsn, session=broken)
    task = declare(app)
    with pytest.raises(RuntimeError, match="no session today"):
        task.enqueue()
    app.close()


# --- Flask-SQLAlchemy


@pytest.fixture(params=DRIVERS)
def db(database: Database, request: pytest.FixtureRequest) -> Iterator[SQLAlchemy]:
    web, db = Flask("shop"), SQLAlchemy()
    web.config["SQLALCHEMY_DATABASE_URI"] = url(database.dsn, request.param)
    db.init_app(web)
    with web.app_context():
        yield db
        db.session.remove()
        db.engine.dispose()


def test_flask_sqlalchemys_extension_stands_for_its_session(
    send: Task[..., None], db: SQLAlchemy, query: Query
) -> None:
    send.using(db).enqueue(1)
    assert query(COUNT) == [(0,)]
    db.session.rollback()
    send.using(db).enqueue(2)
    db.session.commit()
    assert query("SELECT args FROM qworker.job") == [({"n": 2},)]


def test_outside_of_an_application_context_there_is_no_session(
    database: Database, db: SQLAlchemy, query: Query
) -> None:
    app = App(database.dsn, session=lambda: db.session)
    task = declare(app)
    db.session.execute(sqlalchemy.text("SELECT 1"))
    task.enqueue()
    assert query(COUNT) == [(0,)]
    with ThreadPoolExecutor() as threads:  # a thread has no context
        threads.submit(task.enqueue).result()
    assert query(COUNT) == [(1,)]
    app.close()
