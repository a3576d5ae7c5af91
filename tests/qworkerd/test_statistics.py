"""The scheduler writes what the node has counted: once, whatever happens to the answer and to the scheduler."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.db.connection import connect
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.scheduler.statistics import Statistics
from qworkerd.shared.checkpoint import Checkpoint
from qworkerd.shared.context import NodeContext
from qworkerd.shared.tally import CELLS, Counter
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

WRITTEN = """
    SELECT s.queue, s.task, c.succeeded, c.failed, c.run_seconds, c.run_bucket, c.run_count, c.wait_count
      FROM qworker.stat_flush AS f
     CROSS JOIN LATERAL jsonb_to_recordset(f.counts) AS c (series integer, succeeded integer, failed integer,
           run_seconds float8, run_bucket integer[], run_count integer[], wait_count integer[])
      JOIN qworker.series AS s ON s.id = c.series
     ORDER BY f.at, s.queue, s.task, c.succeeded"""


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def node(database: Database) -> NodeContext:
    return make_node(App(), Settings(dsn=database.dsn, processes=2))


def total(conn: Connection) -> int | None:
    return sum(row[2] or 0 for row in conn.execute(WRITTEN).fetchall())


def test_the_differences_of_all_processes_are_written(conn: Connection, node: NodeContext) -> None:
    statistics, first, second = Statistics(node, "1.0"), node.tally.writer(1), node.tally.writer(2)
    send, report = node.tally.numbers["mail", "send"], node.tally.numbers["default", "report"]
    first.succeed(send, [0.1, 0.1], [0.5])
    second.succeed(send, [0.1], [])
    second.count(report, Counter.FAILED, 4)
    statistics.flush(conn)
    first.succeed(send, [0.1], [])
    statistics.flush(conn)
    statistics.flush(conn)
    assert conn.execute(WRITTEN).fetchall() == [
        ("default", "report", None, 4, None, None, None, None),
        ("mail", "send", 1, None, 0.0, [0], [1], [1]),
        ("mail", "send", 3, None, 0.5, [0, 51], [2, 1], [3]),
    ]


def test_a_node_that_counts_nothing_writes_once(conn: Connection, node: NodeContext) -> None:
    statistics = Statistics(node, "1.0")
    statistics.flush(conn)
    assert conn.execute("SELECT version FROM qworker.deployment").fetchall() == [("1.0",)]
    conn.execute("DELETE FROM qworker.stat_source")
    statistics.flush(conn)
    assert conn.execute("SELECT FROM qworker.stat_source").fetchall() == []
    assert conn.execute("SELECT FROM qworker.stat_flush").fetchall() == []


class LostAnswerError(Exception):
    """The commit happened, and nobody heard of it."""


@pytest.mark.parametrize("committed", [True, False])
def test_a_write_without_an_answer_is_sent_again_by_the_next_scheduler(
    conn: Connection, node: NodeContext, *, committed: bool
) -> None:
    tally, send = node.tally.writer(1), node.tally.numbers["mail", "send"]
    statistics = Statistics(node, "1.0")
    tally.succeed(send, [0.1] * 3, [])
    transaction = nullcontext() if committed else conn.transaction()
    with suppress(LostAnswerError), transaction, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "confirm", lambda _: _raise())
        statistics.flush(conn)
    assert node.checkpoint.pending
    tally.succeed(send, [0.1] * 4, [])
    Statistics(node, "1.0").flush(conn)
    assert total(conn) == 3, "the same counts under the same number"
    Statistics(node, "1.0").flush(conn)
    assert total(conn) == 7


def _raise() -> None:
    raise LostAnswerError


def test_counts_are_folded_and_queues_sampled(conn: Connection, node: NodeContext) -> None:
    statistics = Statistics(node, "1.0")
    node.tally.writer(1).succeed(node.tally.numbers["mail", "send"], [0.1], [])
    statistics.flush(conn)
    conn.execute("UPDATE qworker.stat_flush SET at = at - interval '2 days'")
    statistics.fold_flushed(conn)
    statistics.fold(conn)
    statistics.delete_old(conn)
    statistics.sample(conn)
    assert conn.execute("SELECT width, succeeded FROM qworker.stat").fetchall() == [(60, 1)]
    assert conn.execute("SELECT queue FROM qworker.depth").fetchall() == [("",)]


def test_lanes_that_are_expensive_to_count_are_left_out_of_most_samples(
    conn: Connection, node: NodeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large table whose sample has no page, a sample has only what was counted in the lanes."""
    monkeypatch.setattr("qworker.depth.EXACT", 0)
    monkeypatch.setattr("qworker.depth.SAMPLED", 1e-9)
    monkeypatch.setattr("qworkerd.scheduler.statistics.EXPENSIVE_LANES", 0.0)
    monkeypatch.setattr("qworkerd.scheduler.statistics.LANES_FACTOR", 1_000_000)
    conn.execute("INSERT INTO qworker.job (task) VALUES ('send')")
    statistics, found = Statistics(node, "1.0"), []
    for _ in range(4):
        statistics.sample(conn)
        found.append([row[0] for row in conn.execute("SELECT queue FROM qworker.depth ORDER BY queue")])
        conn.execute("DELETE FROM qworker.depth")
    assert found == [["", "default"], ["", "default"], [""], [""]]


def test_damaged_counts_do_not_stop_the_statistics(conn: Connection, node: NodeContext) -> None:
    """A handler in C may write anywhere; the statistics of the whole cluster are folded by one statement."""
    statistics, send = Statistics(node, "1.0"), node.tally.numbers["mail", "send"]
    node.tally.writer(1).succeed(send, [0.1], [1.0])
    statistics.flush(conn)
    region = node.tally._cells[send * CELLS : (send + 1) * CELLS]
    for number in range(CELLS):
        region[number] = (-(1 << 63), (1 << 63) - 1, 0)[number % 3]
    statistics.flush(conn)
    node.tally.writer(2).succeed(send, [0.1], [])
    statistics.flush(conn)
    conn.execute("UPDATE qworker.stat_flush SET at = at - interval '2 days'")
    statistics.fold_flushed(conn)
    statistics.fold(conn)
    assert conn.execute("SELECT FROM qworker.stat_flush").fetchall() == []
    ((succeeded, run),) = conn.execute("SELECT succeeded, run_seconds FROM qworker.stat").fetchall()
    assert 0 < succeeded < 2**31
    assert run >= 0
