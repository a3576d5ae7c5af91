"""A job that joins the session of a request, and is rolled back because nobody commits: it is said, once."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import flask
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from qworker import App
from qworker.contrib.flask import Qworker
from qworker.testing import join
from tests.database import Database
from tests.qworker.drivers import url

View = Callable[[], Any]


class Shop:
    """A Flask application with one view, which a test gives."""

    def __init__(self, database: Database, *, queue_first: bool) -> None:
        self.db = SQLAlchemy()
        self.queue = Qworker(session=lambda: self.db.session)
        self.send = self.queue.task(name="send")(self._nothing)
        self.web = Flask("shop")
        self.web.config["SQLALCHEMY_DATABASE_URI"] = url(database.dsn, "psycopg")
        for extension in (self.queue, self.db) if queue_first else (self.db, self.queue):
            extension.init_app(self.web)
        self.database = database

    @staticmethod
    def _nothing() -> None: ...

    def close(self) -> None:
        with self.web.app_context():
            self.db.engine.dispose()
        self.queue.close()

    def request(self, view: View) -> int:
        self.web.view_functions["view"] = view
        if not any(rule.endpoint == "view" for rule in self.web.url_map.iter_rules()):
            self.web.add_url_rule("/", "view", view)
        return self.web.test_client().get("/").status_code

    def jobs(self) -> int:
        with self.database.connect() as conn:
            ((count,),) = conn.execute("SELECT count(*) FROM qworker.job").fetchall()
        return int(count)


@pytest.fixture(params=[False, True], ids=["database-first", "queue-first"])
def shop(request: pytest.FixtureRequest, database: Database) -> Iterator[Shop]:
    shop = Shop(database, queue_first=request.param)
    yield shop
    shop.close()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "qworker.flask"]


Warnings = Callable[[], list[str]]


def test_jobs_of_a_session_that_is_not_committed_are_reported_once(shop: Shop, warnings: Warnings) -> None:
    def view() -> str:
        shop.db.session.execute(text("SELECT 1"))
        shop.send.enqueue()
        shop.send.enqueue_many([(), ()])
        return ""

    assert shop.request(view) == 200
    assert shop.jobs() == 0
    (warning,) = warnings()
    assert warning.startswith("jobs enqueued in the session were rolled back")
    assert "closed without a commit (send): call db.session.commit()" in warning


def test_the_session_may_be_named_or_closed_by_the_view_itself(shop: Shop, warnings: Warnings) -> None:
    def named() -> str:
        shop.send.using(shop.db).enqueue()
        return ""

    def closed() -> str:
        shop.send.using(shop.db.session).enqueue()
        shop.db.session.remove()
        return ""

    def own() -> str:
        with Session(shop.db.engine) as session:
            shop.send.using(session).enqueue()
        return ""

    for number, view in enumerate((named, closed, own), 1):
        shop.request(view)
        assert len(warnings()) == number
    assert shop.jobs() == 0


def test_a_script_in_an_application_context_is_told_too(shop: Shop, warnings: Warnings) -> None:
    with shop.web.app_context():
        shop.send.using(shop.db).enqueue()
    assert len(warnings()) == 1


def test_what_is_committed_is_not_reported(shop: Shop, warnings: Warnings) -> None:
    def committed() -> str:
        shop.send.using(shop.db).enqueue()
        shop.db.session.commit()
        return ""

    def in_a_savepoint() -> str:
        with shop.db.session.begin_nested():
            shop.send.enqueue()
        shop.db.session.commit()
        return ""

    def at_once() -> str:
        shop.db.session.execute(text("SELECT 1"))
        shop.send.using(None).enqueue()
        return ""

    for number, view in enumerate((committed, in_a_savepoint, at_once), 1):
        shop.request(view)
        assert (shop.jobs(), warnings()) == (number, [])


def test_a_commit_when_the_context_ends_is_one(database: Database, warnings: Warnings) -> None:
    shop = Shop(database, queue_first=False)

    def commit(_error: BaseException | None) -> None:
        shop.db.session.commit()

    shop.web.teardown_appcontext_funcs.insert(1, commit)  # between that of the session and ours
    shop.request(lambda: str(shop.send.using(shop.db).enqueue().id))
    assert (shop.jobs(), warnings()) == (1, [])
    shop.close()


def test_the_commit_of_a_savepoint_is_none_of_the_job(shop: Shop, warnings: Warnings) -> None:
    def view() -> str:
        with shop.db.session.begin_nested():
            shop.send.enqueue()
        return ""

    shop.request(view)
    assert len(warnings()) == 1


def test_what_is_rolled_back_on_purpose_is_not_reported(shop: Shop, warnings: Warnings) -> None:
    def rolled_back() -> str:
        shop.send.using(shop.db).enqueue()
        shop.db.session.rollback()
        return ""

    def undone() -> str:
        with suppress(KeyError), shop.db.session.begin_nested():
            shop.send.enqueue()
            raise KeyError
        return ""

    def broken() -> str:
        shop.send.using(shop.db).enqueue()
        raise KeyError

    def closed_by_an_exception() -> str:
        with Session(shop.db.engine) as session:
            shop.send.using(session).enqueue()
            raise KeyError

    def refused() -> str:
        shop.send.using(shop.db).enqueue()
        flask.abort(409)

    statuses = [shop.request(view) for view in (rolled_back, undone, broken, closed_by_an_exception, refused)]
    assert statuses == [200, 200, 500, 500, 409]
    assert (shop.jobs(), warnings()) == (0, [])


def test_a_rolled_back_savepoint_does_not_excuse_the_jobs_before_it(shop: Shop, warnings: Warnings) -> None:
    def view() -> str:
        shop.send.using(shop.db).enqueue()
        with suppress(KeyError), shop.db.session.begin_nested():
            shop.send.enqueue()
            raise KeyError
        return ""

    shop.request(view)
    (warning,) = warnings()
    assert warning.startswith("a job enqueued in the session was rolled back")


def test_a_test_that_joins_a_connection_hears_nothing(shop: Shop, database: Database, warnings: Warnings) -> None:
    engine = create_engine(url(database.dsn, "psycopg"))
    with engine.connect() as conn, conn.begin() as outer, join(shop.queue, conn):
        shop.request(lambda: str(shop.send.enqueue().id))
        outer.rollback()
    engine.dispose()
    assert warnings() == []


def test_outside_of_flask_nothing_is_watched(database: Database, warnings: Warnings) -> None:
    app = App(database.dsn)
    engine = create_engine(url(database.dsn, "psycopg"))
    with Session(engine) as session:
        app.task(name="t")(lambda: None).using(session).enqueue()
        assert session.info == {}
    engine.dispose()
    app.close()
    assert warnings() == []
