"""An application on the test's database, and a hand that does what a worker would do to a job."""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker import App
from qworker.claims import Claims
from qworker.db.pool import Pool
from qworker.search import Search
from tests.database import Database
from tests.qworker.claimer import Claimer


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    app = App(database.dsn)
    yield app
    app.close()


@pytest.fixture
def claimer(database: Database) -> Iterator[Claimer]:
    with Claimer(database) as claimer:
        yield claimer


@pytest.fixture
def search(database: Database) -> Iterator[Search]:
    pool = Pool(database.dsn, "qworker")
    found = Search(pool)
    yield found
    found.close()
    pool.close()


class FakeWorker:
    """Claims jobs and settles them, statement by statement."""

    def __init__(self, database: Database) -> None:
        self._conn = database.connect()
        self._claims = Claims()
        self._token = secrets.randbits(63)

    def claim(self, queue: str = "default") -> int | None:
        """Claim the next job of a queue."""
        rows = self._claims.claim(
            self._conn, node=1, token=self._token, queues=[queue] * 10, priorities=range(10), cursors=[0] * 10, limit=1
        )
        return int(rows[0][0]) if rows else None

    def complete(self, job: int, result: Any = None) -> None:
        results = {} if result is None else {job: result}
        self._claims.acknowledge(
            self._conn, self._token, [job], durations=json.dumps({job: 0.5}), results=json.dumps(results)
        )

    def fail(self, job: int, **error: Any) -> None:
        error = {
            "at": "2026-01-01",
            "attempt": 1,
            "type": "ValueError",
            "message": "no luck",
            "traceback": "...",
        } | error
        self._claims.fail(self._conn, self._token, job, error=json.dumps(error), hook=False)

    def retry(self, job: int, delay: float) -> None:
        self._claims.retry(self._conn, self._token, job, delay=delay, error='{"type": "E"}')

    def cancel(self, job: int) -> None:
        self._claims.end(self._conn, self._token, job, state="cancelled", error=None, duration=0.1)


@pytest.fixture
def fake_worker(database: Database) -> FakeWorker:
    return FakeWorker(database)


#: Run a query on the test's database and return its rows.
Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def query(database: Database) -> Query:
    conn = database.connect()
    return lambda text, *parameters: conn.execute(text, parameters or None).fetchall()
