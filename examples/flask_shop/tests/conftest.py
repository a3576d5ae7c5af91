"""A database of tests, and an application in it: each test is one transaction, which is rolled back."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg.conninfo import conninfo_to_dict

from qworker.contrib.flask import Qworker
from qworker.testing import join
from shop import create_app
from shop.extensions import db, queue


@pytest.fixture(scope="session")
def qworker_app() -> Qworker:
    """The application under test; by default the one that $FLASK_APP names is loaded."""
    return queue


@pytest.fixture(scope="session")
def web(qworker_dsn: str) -> Iterator[Flask]:
    """The application, connected to a database which has the tables of qworker, and here gets those of the models."""
    options = {"connect_args": conninfo_to_dict(qworker_dsn)}
    app = create_app({"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://", "SQLALCHEMY_ENGINE_OPTIONS": options})
    with app.app_context():
        db.session.configure(join_transaction_mode="create_savepoint")
        db.create_all()
        yield app
        db.engine.dispose()


@pytest.fixture
def outbox(web: Flask) -> list[tuple[str, str, str]]:
    """The e-mails that a test has sent."""
    web.config["OUTBOX"] = []
    return web.config["OUTBOX"]


@pytest.fixture
def client(web: Flask, outbox: list[tuple[str, str, str]]) -> Iterator[FlaskClient]:
    """A client whose requests, and the jobs that they enqueue, use one connection: its transaction is rolled back."""
    with web.app_context():
        engine = db.engine
        with engine.connect() as conn, conn.begin() as outer, join(queue, conn):
            db.engines[None] = conn
            yield web.test_client()
            db.session.remove()
            outer.rollback()
        db.engines[None] = engine
