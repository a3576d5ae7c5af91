"""Samples of the sizes of the queues: exact while the table is small, and taken by one node."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import depth
from qworker.db.connection import connect
from qworker.depth import Depths, QueueDepth
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

depths = Depths()


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


def sample(conn: Connection, queues: tuple[str, ...] = ("default",), watermark: int = 0) -> int:
    lanes = [(queue, priority) for queue in queues for priority in range(10)]
    return depths.sample(
        conn, queues=[queue for queue, _ in lanes], priorities=[priority for _, priority in lanes],
        watermarks=[watermark] * len(lanes),
    )  # fmt: skip


def newest(conn: Connection) -> dict[str, QueueDepth]:
    return {found.queue: found for found in depths.newest(conn)}


def test_a_small_table_is_counted(conn: Connection) -> None:
    conn.execute("""
        INSERT INTO qworker.job (queue, task, state, run_at, enqueued_at)
        SELECT 'default', 'noop', 'available'::qworker.job_state, NULL, now() - interval '1 hour'
          FROM generate_series(1, 7)
         UNION ALL SELECT 'default', 'noop', 'available', now() - interval '90 s', now() - interval '1 day'
         UNION ALL SELECT 'mail', 'noop', 'scheduled', now() + interval '1 hour', now() FROM generate_series(1, 3)
         UNION ALL SELECT 'mail', 'noop', 'scheduled', now() - interval '1 s', now()
         UNION ALL SELECT 'mail', 'noop', 'failed', NULL, now() FROM generate_series(1, 2)
         UNION ALL SELECT 'mail', 'noop', 'running', NULL, now()""")
    assert sample(conn) == 3
    found = newest(conn)
    assert found.keys() == {"default", "mail"}
    default, mail = found["default"], found["mail"]
    assert (default.available, default.due, default.scheduled, default.running, default.failed) == (8, 0, 0, 0, 0)
    assert (mail.available, mail.due, mail.scheduled, mail.running, mail.failed) == (0, 1, 4, 1, 2)
    assert default.oldest == pytest.approx(3600, abs=5)
    assert mail.oldest is None
    assert default.exact
    total = conn.execute("SELECT available, scheduled, failed, oldest > 3500 FROM qworker.depth WHERE queue = ''")
    assert total.fetchall() == [(8, 4, 2, True)]


def test_one_node_samples_in_an_interval(database: Database, conn: Connection) -> None:
    taken = []

    def node() -> None:
        with connect(database.dsn, "node") as own:
            taken.append(sample(own))

    def ticks() -> int:
        return len(conn.execute("SELECT DISTINCT at FROM qworker.depth").fetchall())

    before = ticks()
    threads = [threading.Thread(target=node) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The nodes may have met the beginning of the next interval.
    assert sum(taken) == ticks() - before
    assert 1 <= sum(taken) <= 2


def test_of_a_large_table_a_part_is_sampled(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The own lanes are counted exactly while they are short; the rest is an estimate."""
    monkeypatch.setattr(depth, "EXACT", 10)
    monkeypatch.setattr(depth, "SAMPLED", 200)
    for queue, count in (("mail", 50_000), ("default", 3), ("long", 5_000)):
        conn.execute(
            "INSERT INTO qworker.job (queue, task, enqueued_at)"
            " SELECT %s, 'noop', now() - interval '1 min' FROM generate_series(1, %s)",
            (queue, count),
        )
    assert sample(conn, ("default", "long"))
    found = newest(conn)
    assert (found["default"].available, found["default"].exact) == (3, False)
    assert found["default"].oldest == pytest.approx(60, abs=5)
    assert 40_000 < found["mail"].available < 60_000
    assert 1_000 <= found["long"].available < 12_000


def test_times_edited_by_hand_stop_no_sample(conn: Connection) -> None:
    conn.execute("INSERT INTO qworker.job (task, enqueued_at) VALUES ('noop', '-infinity'), ('noop', 'infinity')")
    assert sample(conn)
    assert newest(conn)["default"].available == 2


def test_an_empty_table_has_a_sum(conn: Connection) -> None:
    assert sample(conn) == 1
    assert conn.execute("SELECT available, oldest FROM qworker.depth").fetchall() == [(0, None)]


@pytest.mark.parametrize(("queue", "expected"), [(None, 5), ("default", 4), ("mail", 1), ("none", 0)])
def test_the_backlog_is_what_is_ready_or_due(conn: Connection, queue: str | None, expected: int) -> None:
    conn.execute("""
        INSERT INTO qworker.job (queue, task, state, run_at)
        SELECT 'default', 'noop', 'available'::qworker.job_state, NULL FROM generate_series(1, 3)
         UNION ALL SELECT 'default', 'noop', 'scheduled', now() - interval '1 s'
         UNION ALL SELECT 'default', 'noop', 'scheduled', now() + interval '1 hour'
         UNION ALL SELECT 'default', 'noop', 'failed', NULL
         UNION ALL SELECT 'mail', 'noop', 'available', NULL""")
    assert conn.execute("SELECT qworker.backlog(%s)", (queue,)).fetchone() == (expected,)
    assert queue is not None or conn.execute("SELECT qworker.backlog()").fetchone() == (expected,)


def test_a_sample_of_the_future_does_not_stop_the_others(conn: Connection) -> None:
    """The clock of the server was wrong, and was set back."""
    conn.execute("""
        INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
        SELECT now() + d.ahead, 'default', 999, 0, 0, 0, 0, 1.0, true
          FROM unnest(ARRAY[interval '20 s', '1 day', '10 years']) AS d (ahead)""")
    conn.execute("INSERT INTO qworker.job (queue, task, state) VALUES ('default', 'noop', 'available')")
    assert sample(conn) > 0
    assert newest(conn)["default"].available == 1
    assert sample(conn) == 0, "it is a sample of this interval"
    assert conn.execute("SELECT count(*) FROM qworker.depth WHERE available = 999").fetchone() == (0,)
