"""`db maintain`: what it deletes, drops and analyzes, and what it leaves alone."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.db.connection import connect
from qworker.upkeep import Step, Upkeep, maintain
from tests.database import Database
from tests.qworker.conftest import Query


@pytest.fixture
def conn(database: Database) -> Iterator[Any]:
    with connect(database.dsn, "test", lock_timeout=0.2) as conn:
        yield conn


@pytest.fixture
def leftover(query: Query) -> Iterator[str]:
    """An index as a failed REINDEX CONCURRENTLY leaves it behind."""
    query("CREATE INDEX job_ready_ccnew1 ON qworker.job (id) INCLUDE (seq)")
    yield invalidate(query, "job_ready_ccnew1")
    query("DROP INDEX IF EXISTS qworker.job_ready_ccnew1")


@pytest.fixture
def query(database: Database) -> Any:
    conn = database.connect()

    def query(text: str, *values: object) -> list[Any]:
        cursor = conn.execute(text.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    return query


def invalidate(query: Query, index: str) -> str:
    query("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass RETURNING 1", f"qworker.{index}")
    return index


def by_name(steps: list[Step]) -> dict[str, int]:
    assert [step.problem for step in steps] == [None] * len(steps)
    return {step.name: step.done for step in steps}


def test_what_is_old_is_deleted_and_a_repetition_finds_nothing(conn: Any, query: Query, app: App) -> None:
    held = app.task(name="send")(lambda: None).options(unique="k").enqueue()
    query(
        "INSERT INTO qworker.audit (at, actor, via, action, target)"
        " SELECT now() - age, 'a', 'api', 'x', '{}' FROM unnest('{401 d,1 h}'::interval[]) AS age"
    )
    query(
        "INSERT INTO qworker.unique_key (task, key, job_id, expires_at)"
        " VALUES ('t', 'gone', 77, NULL), ('t', 'over', 78, now()), ('t', 'kept', 79, now() + interval '1 h')"
    )
    done = by_name(maintain(conn))
    assert (
        done["old entries of the audit"]
        == done["expired unique keys"]
        == done["unique keys of jobs that are gone"]
        == 1
    )
    assert query("SELECT job_id FROM qworker.unique_key ORDER BY job_id") == sorted([(held.id,), (79,)])
    again = by_name(maintain(conn))
    assert set(again.values()) == {0, 1}
    assert [name for name, count in again.items() if count] == ["tables analyzed: job_history"]


def test_the_history_as_a_whole_has_statistics_afterwards(conn: Any, query: Query) -> None:
    statistics = (
        "SELECT count(*) FROM pg_statistic WHERE starelid = 'qworker.job_history'::regclass AND stainherit"
        "   AND stadistinct <> 0"
    )
    query("DELETE FROM pg_statistic WHERE starelid = 'qworker.job_history'::regclass RETURNING 1")
    query(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses, is_hook, queue, task, args)"
        " SELECT n, now(), now(), 'completed', 1, n % 32, 5, 0, 0, false, 'q', 't', '{}'"
        "   FROM generate_series(1, 100) AS n"
    )
    assert query(statistics) == [(0,)]
    maintain(conn)
    assert query(statistics)[0][0] > 5


def test_an_index_that_a_failed_reindex_left_is_dropped(conn: Any, query: Query, leftover: str) -> None:
    query("CREATE TABLE qworker.mine (id int)")
    for index, table in (("mine_id_ccnew", "mine"), ("job_mine", "job")):
        query(f"CREATE INDEX {index} ON qworker.{table} (id)")
        invalidate(query, index)
    query("CREATE INDEX valid_ccnew ON qworker.job (id)")
    try:
        assert Upkeep().leftovers(conn) == [leftover]
        assert by_name(maintain(conn))["invalid indexes left by REINDEX CONCURRENTLY"] == 1
        left = query("SELECT relname FROM pg_class WHERE relname ~ 'ccnew|job_mine' ORDER BY relname")
        assert left == [("job_mine",), ("mine_id_ccnew",), ("valid_ccnew",)]
    finally:
        query("DROP TABLE qworker.mine")
        query("DROP INDEX qworker.job_mine, qworker.valid_ccnew")


def test_an_index_whose_table_is_in_use_is_left_and_reported(
    conn: Any, query: Query, leftover: str, database: Database
) -> None:
    with psycopg.connect(database.dsn) as other:
        other.execute("LOCK TABLE qworker.job IN SHARE UPDATE EXCLUSIVE MODE")
        step = maintain(conn)[-2]
    assert (step.done, step.problem) == (0, f"{leftover}: canceling statement due to lock timeout")
    assert Upkeep().leftovers(conn) == [leftover]


def test_a_limit_ends_the_analysis(conn: Any, query: Query, database: Database) -> None:
    with psycopg.connect(database.dsn) as other:
        other.execute("LOCK TABLE qworker.job_history IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises((psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)):
            Upkeep().analyze(conn, 10, 0.05)
    assert conn.execute("SHOW statement_timeout").fetchone() != ("50ms",)
