"""The helpers without pytest's fixtures."""

import unittest
from typing import Any, ClassVar

import psycopg
import pytest

from qworker import App, Task
from qworker.testing import assert_enqueued, drain, join
from tests.database import Database


@pytest.fixture(autouse=True)
def somewhere(database: Database) -> None:
    Orders.dsn = database.dsn


def double(n: int) -> int:
    return 2 * n


class Orders(unittest.TestCase):
    """A test case of somebody who does not use pytest."""

    dsn: ClassVar[str]
    app: App
    double: Task[..., Any]
    conn: psycopg.Connection[Any]

    def setUp(self) -> None:
        self.app = App(self.dsn)
        self.addCleanup(self.app.close)
        self.double = self.app.task(name="double")(double)
        self.conn = psycopg.connect(self.dsn)
        self.addCleanup(self.conn.close)
        self.enterContext(join(self.app, self.conn))

    def test_a_job_runs(self) -> None:
        self.double.enqueue(2)
        assert_enqueued(self.double, {"n": 2})
        assert [attempt.result for attempt in drain(self.app)] == [4]

    def test_nothing_is_left_of_it(self) -> None:
        assert list(self.app.jobs()) == []
