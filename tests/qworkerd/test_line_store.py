"""Lines never keep a job from ending: what the database rejects is dropped, and what it cannot take now waits."""

from collections.abc import Iterator

import psycopg
import pytest

from qworker.db.connection import connect
from qworker.job_logs import AttemptLines, JobLogs
from qworkerd.worker import line_store
from qworkerd.worker.line_store import LineStore
from tests.database import Database
from tests.qworker.claimer import TOKEN, Claimer


class Connection:
    """The connection of an acknowledger, which may be away."""

    def __init__(self, database: Database) -> None:
        self.current: psycopg.Connection[tuple[object, ...]] | None = connect(database.dsn, "test")

    def get(self) -> psycopg.Connection[tuple[object, ...]] | None:
        return self.current

    def usable_after(self, error: Exception) -> bool:
        return isinstance(error, psycopg.Error) and self.current is not None and not self.current.closed


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    made = Connection(database)
    yield made
    if made.current is not None:
        made.current.close()


@pytest.fixture
def claimer(database: Database) -> Iterator[Claimer]:
    with Claimer(database) as made:
        yield made


@pytest.fixture
def store(connection: Connection) -> LineStore:
    return LineStore("qworker", connection)  # type: ignore[arg-type] # a stand-in


def add(store: LineStore, claimer: Claimer, *lines: str) -> list[int]:
    jobs = claimer.insert(len(lines))
    claimer.claim(len(lines))
    for job, text in zip(jobs, lines, strict=True):
        store.add(AttemptLines(job, TOKEN, 1, 0, text))
    return jobs


def stored(claimer: Claimer) -> list[int]:
    return [row[0] for row in claimer.conn.execute("SELECT job FROM qworker.job_log ORDER BY job")]


def test_lines_that_are_rejected_are_dropped_and_the_others_stored(store: LineStore, claimer: Claimer) -> None:
    first, _, last = add(store, claimer, "[]", "no JSON", "[]")
    store.write()
    assert stored(claimer) == [first, last]
    assert not store
    add(store, claimer, "no JSON")
    store.write()
    assert not store


def test_lines_wait_while_the_database_is_away(store: LineStore, connection: Connection, claimer: Claimer) -> None:
    jobs = add(store, claimer, "[]", "[]")
    kept, connection.current = connection.current, None
    store.write()
    assert store
    connection.current = kept
    store.write()
    assert stored(claimer) == []  # not at once
    store._due = 0.0
    store.write()
    assert stored(claimer) == jobs


def test_lines_that_wait_for_too_long_are_dropped(
    store: LineStore, connection: Connection, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_store, "MAX_WAITING", 3 * len("[]"))
    jobs = add(store, claimer, *["[]"] * 5)
    kept, connection.current = connection.current, None
    store.write()
    connection.current, store._due = kept, 0.0
    store.write()
    assert stored(claimer) == jobs[2:]


def test_a_locked_table_delays_no_more_than_one_statement(
    store: LineStore, connection: Connection, claimer: Claimer, database: Database
) -> None:
    jobs = add(store, claimer, "[]")
    assert connection.current is not None
    connection.current.execute("SET lock_timeout = '50ms'")
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.job_log IN ACCESS EXCLUSIVE MODE")
        store.write()
        assert store
    store._due = 0.0
    store.write()
    assert stored(claimer) == jobs


def test_a_batch_is_one_statement(store: LineStore, claimer: Claimer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = JobLogs.store

    def counting(self: JobLogs, database: psycopg.Connection[tuple[object, ...]], ended: list[AttemptLines]) -> int:
        sizes.append(len(ended))
        return real(self, database, ended)

    monkeypatch.setattr(JobLogs, "store", counting)
    add(store, claimer, *["[]"] * 100)
    store.write()
    assert sizes == [100]
