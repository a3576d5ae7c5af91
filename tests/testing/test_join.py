"""What `join` binds, and what tests leave in the database."""

import time
from typing import Any

import flask
import psycopg
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from qworker import App, InvalidOperation
from qworker.contrib.flask import Qworker
from qworker.testing import assert_enqueued, drain, enqueued, join, truncate
from tests.database import Database
from tests.qworker.drivers import url


def jobs(database: Database) -> Any:
    return database.connect().execute("SELECT count(*) FROM qworker.jobs").fetchone()


def test_a_session_may_be_committed_while_it_is_joined(app: App, database: Database) -> None:
    task = app.task(name="t")(lambda: None)
    engine = create_engine(url(database.dsn, "psycopg"))
    with Session(engine) as session, join(app, session):
        task.enqueue()
        assert jobs(database) == (0,)
        session.commit()
        assert jobs(database) == (1,)
        task.enqueue()
        assert len(drain(app)) == 2
        session.rollback()
        assert [job.state for job in app.jobs()] == ["available"]
    engine.dispose()


def test_what_is_joined_must_be_a_connection(app: App) -> None:
    with pytest.raises(TypeError, match=r"not builtins\.object"), join(app, object()):
        pass


def test_a_database_with_jobs_of_others_is_refused(app: App, database: Database) -> None:
    """Most likely it is that of development, and drain() would send its e-mails."""
    task = app.task(name="t")(lambda: None)
    task.enqueue_many([()] * 2)
    conn = database.connect()
    with join(app, conn):
        assert len(enqueued(task)) == 2
    conn.execute("UPDATE qworker.job SET enqueued_at = enqueued_at - interval '1 day'")
    refusal = r"2 jobs wait that are older .* the fixture qworker_dsn.*truncate\(app\)"
    with pytest.raises(InvalidOperation, match=refusal), join(app, conn):
        pass
    truncate(app)
    with join(app, conn):
        pass


def test_a_flask_test_is_one_transaction(database: Database) -> None:
    """The session of each application context uses the connection of the test."""
    db = SQLAlchemy()
    queue = Qworker(session=lambda: db.session)
    web = flask.Flask("shop")
    web.config["SQLALCHEMY_DATABASE_URI"] = url(database.dsn, "psycopg")
    db.init_app(web)
    queue.init_app(web)

    @queue.task(name="greet", retry=False)
    def greet(n: int) -> Any:
        assert db.session() is not session
        found = db.session.execute(text("UPDATE pg_temp.person SET greeted = id RETURNING id")).scalars().all()
        db.session.commit()
        if not n:
            raise ValueError("after the commit")
        greet.enqueue(n - 1)
        return found

    with web.app_context(), db.engine.connect() as conn, conn.begin() as outer, join(queue, conn):
        engine = db.engine
        engines: Any = db.engines
        engines[None] = conn
        session = db.session()
        session.execute(text("CREATE TEMP TABLE person (id int, greeted int)"))
        session.execute(text("INSERT INTO pg_temp.person VALUES (7)"))
        session.commit()
        greet.enqueue(1)
        assert_enqueued(greet, {"n": 1}, count=1)
        attempts = drain(queue, raise_failures=False)
        assert [(a.state, a.result) for a in attempts] == [("completed", [7]), ("failed", None)]
        assert session.execute(text("SELECT greeted FROM pg_temp.person")).scalars().all() == [7]
        db.session.remove()
        outer.rollback()
        engines[None] = engine
    engine.dispose()
    queue.close()
    assert jobs(database) == (0,)


def test_jobs_enqueued_without_using_join_the_session_of_the_application(database: Database) -> None:
    """Nobody has to remember `.using(db.session)`."""
    db = SQLAlchemy()
    queue = Qworker(session=lambda: db.session)
    web = flask.Flask("shop")
    web.config["SQLALCHEMY_DATABASE_URI"] = url(database.dsn, "psycopg2")
    db.init_app(web)
    queue.init_app(web)
    send = queue.task(name="send")(lambda: None)
    with web.app_context():
        db.session.execute(text("SELECT 1"))
        send.enqueue()
        send.enqueue_many([()])
        assert jobs(database) == (0,)
        db.session.rollback()
        assert jobs(database) == (0,)
        db.session.execute(text("SELECT 1"))
        send.enqueue()
        db.session.commit()
        assert jobs(database) == (1,)
        db.engine.dispose()
    queue.close()


def test_what_tests_have_committed_is_deleted_in_milliseconds(app: App, database: Database) -> None:
    task = app.task(name="t", unique=True)(lambda n: n)
    own = database.connect()
    own.execute("CREATE TABLE mine (n int)")
    own.execute("INSERT INTO mine VALUES (1)")
    elapsed = []
    try:
        for n in range(3):
            task.enqueue(n)
            drain(app)
            task.enqueue(n)
            app.queue("default").pause()
            begun = time.perf_counter()
            truncate(app)
            elapsed.append(time.perf_counter() - begun)
            counts = "SELECT (SELECT count(*) FROM qworker.jobs), (SELECT count(*) FROM qworker.unique_key)"
            assert own.execute(counts).fetchone() == (0, 0)
        # The fastest one: a machine may stand still during the others.
        assert min(elapsed) < 1.0
        assert own.execute("SELECT n FROM mine").fetchall() == [(1,)]
        assert own.execute("SELECT count(*) > 0 FROM qworker.migration").fetchone() == (True,)
        truncate(app)
    finally:
        own.execute("DROP TABLE mine")


def test_tables_of_the_application_in_the_same_schema_are_kept(app: App, database: Database) -> None:
    names = ["customer", "job_history_of_mine", "job_history_1", "queues"]
    with database.connect() as own:
        for name in names:
            own.execute(f"CREATE TABLE qworker.{name} AS SELECT 1 AS n".encode())
    app.task(name="t")(lambda: None).enqueue()
    try:
        truncate(app)
        with database.connect() as own:
            assert own.execute("SELECT count(*) FROM qworker.job").fetchone() == (0,)
            for name in names:
                assert own.execute(f"SELECT n FROM qworker.{name}".encode()).fetchall() == [(1,)]  # noqa: S608
    finally:
        with database.connect() as own:
            own.execute("DROP TABLE qworker." + ", qworker.".join(names))


def test_every_table_of_ours_that_holds_rows_of_jobs_is_emptied(app: App, database: Database) -> None:
    own = database.connect()
    own.execute("INSERT INTO qworker.job (task) VALUES ('t')")
    own.execute("INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('t', 'k', 1)")
    own.execute("INSERT INTO qworker.queue (name) VALUES ('q')")
    own.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by) VALUES ('c', 't', '*', 'UTC', 1)"
    )
    own.execute("""
        INSERT INTO qworker.job_history (id, task, enqueued_at, finished_at, state, attempt, ring_day, priority,
                                         crashes, node_losses, is_hook, queue, args)
        SELECT day, 't', now(), now(), 'completed', 1, day, 5, 0, 0, false, 'q', '{}' FROM generate_series(0, 31) AS day
    """)
    used = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'qworker'::regnamespace AND relkind = 'r'"
        " AND relname NOT IN ('node', 'idle_node') AND pg_relation_size(oid) > 0 ORDER BY 1"
    )
    days = [f"job_history_{day:02}" for day in range(32)]
    filled = ["cron", "job", *days, "migration", "queue", "unique_key"]
    assert [name for (name,) in own.execute(used)] == filled
    truncate(app)
    assert [name for (name,) in own.execute(used)] == ["migration"]


def test_no_connection_of_the_application_is_left_after_it(app: App, database: Database) -> None:
    app.task(name="t")(lambda: None).enqueue()
    conn = database.connect()
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    assert conn.execute(others).fetchone() != (0,)
    truncate(app)
    for _ in range(200):
        if conn.execute(others).fetchone() == (0,):
            break
        conn.execute("SELECT pg_sleep(0.01)")
    assert conn.execute(others).fetchone() == (0,)


def test_a_test_may_empty_the_database_in_its_own_transaction(app: App, database: Database) -> None:
    app.task(name="t")(lambda: None).enqueue()
    with psycopg.connect(database.dsn) as conn:
        truncate(app, using=conn)
        assert conn.execute("SELECT count(*) FROM qworker.jobs").fetchone() == (0,)
        conn.rollback()
    assert jobs(database) == (1,)
