"""An application on the test's database, and a connection whose transaction is rolled back."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.testing import join
from tests.database import Database


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    app = App(database.dsn)
    yield app
    app.close()


@pytest.fixture
def conn(database: Database, app: App) -> Iterator[psycopg.Connection[Any]]:
    """The transaction of the test: the application joins it."""
    conn = database.connect(autocommit=False)
    with join(app, conn):
        yield conn
    conn.rollback()
    left = database.connect().execute("SELECT count(*) FROM qworker.jobs").fetchone()
    assert left == (0,), "a job has left the transaction of the test"
