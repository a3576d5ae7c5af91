"""The extension in processes that enqueue: which database it uses, and when."""

import gc
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from psycopg.conninfo import conninfo_to_dict

from qworker import App, ConfigurationError
from qworker.contrib.flask import Qworker
from qworker.contrib.flask.database import dsn
from qworker.migrations import migrate
from tests.database import Database
from tests.qworker.drivers import url


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QWORKER_DSN", "DATABASE_URL", "FLASK_APP"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def queue() -> Iterator[Qworker]:
    queue = Qworker()

    @queue.task(name="send")
    def send(n: int) -> None: ...

    yield queue
    queue.close()


@pytest.fixture
def other(empty_database: Database) -> Database:
    with empty_database.connect() as conn:
        migrate(conn)
    return empty_database


def shop(queue: Qworker, database: Database, name: str = "shop") -> Flask:
    app = Flask(name)
    app.config["QWORKER_DSN"] = database.dsn
    queue.init_app(app)
    return app


def sizes(database: Database) -> tuple[int, ...]:
    with database.connect() as conn:
        return conn.execute("SELECT count(*) FROM qworker.job").fetchone() or ()


# --- the connection string


HOST = "postgresql://ada:secret@db.example:5433/shop"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"SQLALCHEMY_DATABASE_URI": "sqlite:///shop.db"}, None),
        ({"QWORKER_DSN": "dbname=jobs", "SQLALCHEMY_DATABASE_URI": HOST}, {"dbname": "jobs"}),
        (
            {"SQLALCHEMY_DATABASE_URI": HOST.replace(":", "+psycopg2:", 1) + "?sslmode=require&application_name=web"},
            {
                "user": "ada", "password": "secret", "host": "db.example", "port": "5433", "dbname": "shop",
                "sslmode": "require", "application_name": "web",
            },
        ),
        (
            {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://ada:p%40ss@/shop?host=a:1&host=b:2"},
            {"user": "ada", "password": "p@ss", "host": "a,b", "port": "1,2", "dbname": "shop"},
        ),
        (
            {"SQLALCHEMY_DATABASE_URI": "postgresql+pg8000://ada@db/shop", "SQLALCHEMY_ENGINE_OPTIONS": {
                "pool_pre_ping": True, "connect_args": {"sslmode": "verify-full", "ssl_context": object()},
            }},
            {"user": "ada", "host": "db", "dbname": "shop", "sslmode": "verify-full"},
        ),
    ],
)  # fmt: skip
def test_the_connection_string_has_the_options_of_sqlalchemys_url(
    config: dict[str, Any], expected: dict[str, str] | None
) -> None:
    app = Flask("shop")
    app.config.update(config)
    found = dsn(app.config)
    assert (found and conninfo_to_dict(found)) == expected


def test_a_url_that_cannot_be_parsed_is_not_shown() -> None:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "a secret"
    with pytest.raises(ConfigurationError, match="is not a URL") as raised:
        dsn(app.config)
    assert "secret" not in str(raised.value)


def test_the_environment_is_the_last_resort(
    queue: Qworker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    queue.init_app(app)
    monkeypatch.setenv("QWORKER_DSN", database.dsn)
    queue.tasks["send"].enqueue(1)
    assert sizes(database) == (1,)


# --- applications


def test_each_application_has_its_database(queue: Qworker, database: Database, other: Database) -> None:
    one, two = shop(queue, database, "one"), shop(queue, other, "two")
    send = queue.tasks["send"]
    with one.app_context():
        job = send.enqueue(1)
        with two.app_context():
            send.enqueue_many([(2,), (3,)])
            assert queue.queue("default").size() == 2
        assert queue.job(job.id).refresh().args == {"n": 1}
    assert (sizes(database), sizes(other)) == ((1,), (2,))


def test_one_application_needs_no_context(queue: Qworker, database: Database) -> None:
    app = shop(queue, database)
    queue.tasks["send"].enqueue(1)
    assert sizes(database) == (1,)
    assert app.extensions["qworker"].queue is queue


def test_several_applications_need_a_context(queue: Qworker, database: Database) -> None:
    apps = [shop(queue, database, name) for name in ("one", "two")]
    with pytest.raises(RuntimeError, match=r"with 2 Flask applications: use `with app\.app_context\(\):`"):
        queue.tasks["send"].enqueue(1)
    del apps
    gc.collect()
    with pytest.raises(RuntimeError, match=r"with no Flask applications: call init_app\(app\)"):
        queue.tasks["send"].enqueue(1)


def test_an_application_without_the_extension_is_named(queue: Qworker, database: Database) -> None:
    shop(queue, database)
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"'bare' was not initialized with this"):
        queue.tasks["send"].enqueue(1)


def test_an_application_has_one_extension(queue: Qworker, database: Database) -> None:
    app = shop(queue, database)
    with pytest.raises(ConfigurationError, match="'shop' already"):
        Qworker(app)


def test_an_extension_is_an_app(queue: Qworker) -> None:
    assert isinstance(queue, App)
    assert queue.tasks["send"].name == "send"


# --- hooks and handlers


def test_a_handler_and_each_hook_have_a_context(queue: Qworker, database: Database) -> None:
    app = shop(queue, database)
    seen: list[tuple[str, bool]] = []

    @app.teardown_appcontext
    def leave(error: BaseException | None) -> None:
        seen.append(("left", error is None))

    def look(*_: Any) -> None:
        seen.append((flask.current_app.name, hasattr(flask.g, "seen")))
        flask.g.seen = True

    (around,) = queue.middlewares
    job: Any = None
    queue.on_error(look)
    queue.on_worker_start(look)
    queue.on_worker_stop(look)
    around(job, look)
    around(job, look)
    for hook in (*queue.start_hooks, *queue.stop_hooks):
        hook()
    queue.error_hooks[0](job, job)
    queue.on_end(look)
    queue.end_hooks[0](job, job)
    assert seen == [("shop", False), ("left", True)] * 6


def test_flask_sqlalchemys_session_is_the_ambient_one(database: Database) -> None:
    db = SQLAlchemy()
    queue = Qworker(session=lambda: db.session)
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = url(database.dsn, "psycopg2")
    db.init_app(app)
    queue.init_app(app)

    @queue.task(name="send")
    def send(n: int) -> None: ...

    with app.app_context():
        db.session.connection()
        send.enqueue(1)
        assert sizes(database) == (0,)
        db.session.rollback()
        db.session.connection()
        send.enqueue(2)
        db.session.commit()
        db.engine.dispose()
    send.enqueue(3)  # outside of a context there is no session
    assert sizes(database) == (2,)
    queue.close()
