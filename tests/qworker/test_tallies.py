"""Counts in the database: written once, moved once, and kept for a while."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql

from qworker.db.connection import connect
from qworker.tallies import FOLDS, Tallies
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

tallies = Tallies()
MINUTE = "SELECT date_trunc('minute', clock_timestamp())"
SUMS = (
    "SELECT sum(succeeded), sum(failed), sum(run_seconds), sum(r.number), sum(w.number) FROM qworker.stat"
    " CROSS JOIN LATERAL (SELECT sum(b.number) AS number FROM qworker.buckets(run_histogram) AS b) AS r"
    " CROSS JOIN LATERAL (SELECT sum(b.number) AS number FROM qworker.buckets(wait_histogram) AS b) AS w"
)


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


def flush(conn: Connection, seq: int, source: int = 1, *, back: str = "0", **counts: Any) -> bool:
    """Write counts as a node does, and date them back, relative to the minute in which the transaction began."""
    with conn.transaction():
        (series,) = tallies.series(conn, [("default", "send")])
        row = {"series": series, "succeeded": 1, "run_seconds": 0.5, "run_bucket": [3, 7], "run_count": [2, 1],
               "wait_bucket": [5], "wait_count": [3], **counts}  # fmt: skip
        written = tallies.flush(conn, source=source, seq=seq, version="1.0", series=[series], counts=json.dumps([row]))
        conn.execute("UPDATE qworker.stat_flush SET at = date_trunc('minute', now()) - %s::interval"
                     " WHERE at >= date_trunc('minute', now())", (back,))  # fmt: skip
    return written


def test_pairs_keep_their_ids(conn: Connection) -> None:
    first = tallies.series(conn, [("default", "send"), ("mail", "send")])
    assert tallies.series(conn, [("mail", "send"), ("other", "x"), ("default", "send")])[::2] == first[::-1]


def test_a_write_that_is_sent_again_counts_once(conn: Connection) -> None:
    assert flush(conn, 1, back="5 min")
    assert not flush(conn, 1)
    tallies.fold_flushed(conn)
    assert not flush(conn, 1), "although what it wrote has been moved"
    assert flush(conn, 2, back="5 min")
    assert flush(conn, 1, source=2, back="5 min")
    tallies.fold_flushed(conn)
    assert conn.execute("SELECT sum(succeeded) FROM qworker.stat").fetchone() == (3,)


def test_the_writes_of_all_nodes_are_added(conn: Connection) -> None:
    with conn.transaction():  # so that all are of the same minute
        for source in range(5):
            flush(conn, 1, source, back="1 min", failed=2)
    assert tallies.fold_flushed(conn) == 1
    assert conn.execute(
        "SELECT width, succeeded, failed, retried, run_seconds,"
        " ARRAY (SELECT b::text FROM qworker.buckets(run_histogram) AS b),"
        " ARRAY (SELECT b::text FROM qworker.buckets(wait_histogram) AS b) FROM qworker.stat"
    ).fetchall() == [(1, 5, 10, None, 2.5, ["(3,10)", "(7,5)"], ["(5,15)"])]
    assert conn.execute("SELECT count(*) FROM qworker.stat_flush").fetchone() == (0,)


def test_this_minute_is_not_moved_yet(conn: Connection) -> None:
    seq, moved, minutes = 0, 0, set[object]()
    while len(minutes) != 1:  # again if the minute has ended meanwhile
        conn.execute("DELETE FROM qworker.stat_flush")
        minutes, seq = set(conn.execute(MINUTE)), seq + 1
        flush(conn, seq)
        moved = tallies.fold_flushed(conn)
        minutes |= set(conn.execute(MINUTE))
    assert moved == 0


@pytest.mark.parametrize(("table", "widest"), [("stat", 60), ("stat_queue", 60), ("stat_total", 1_440)])
def test_each_table_has_each_count_once_in_its_widest_period(conn: Connection, table: str, widest: int) -> None:
    for hour in range(1, 90):
        flush(conn, hour, back=f"{hour + 100} h {hour} min")
        tallies.fold_flushed(conn)
    while tallies.fold_all(conn):
        pass
    name = sql.Identifier("qworker", table)
    widths = conn.execute(sql.SQL("SELECT DISTINCT width FROM {}").format(name)).fetchall()
    query = sql.SQL("SELECT sum(succeeded), sum(run_seconds), count(*) FROM {} AS s {}").format(
        name, sql.SQL("WHERE queue = 'default'" if table == "stat_queue" else "")
    )
    ((succeeded, seconds, rows),) = conn.execute(query).fetchall()
    assert (widths, succeeded, seconds) == ([(widest,)], 89, 44.5)
    assert rows <= 6 if widest == 1_440 else rows >= 80


def test_the_rows_without_a_name_are_the_sums_of_all_queues(conn: Connection) -> None:
    with conn.transaction():
        series = tallies.series(conn, [("mail", "send"), ("mail", "receive"), ("default", "send")])
        counts = [{"series": number, "succeeded": 10**position} for position, number in enumerate(series)]
        tallies.flush(conn, source=1, seq=1, version="1", series=series, counts=json.dumps(counts))
        conn.execute("UPDATE qworker.stat_flush SET at = at - interval '2 h'")
    tallies.fold_flushed(conn)
    while tallies.fold_all(conn):
        pass
    found: dict[str, int] = dict(conn.execute("SELECT queue, succeeded FROM qworker.stat_queue").fetchall())
    assert found == {"": 111, "mail": 11, "default": 100}


def test_a_day_counts_more_than_an_integer_holds(conn: Connection) -> None:
    """One task that runs 60,000 jobs a second, all day."""
    (series,) = tallies.series(conn, [("default", "send")])
    conn.execute(
        "INSERT INTO qworker.stat_total (width, at, series, succeeded)"
        " SELECT 60, '2026-01-01Z'::timestamptz + make_interval(hours => hour), %s, 216000000"
        " FROM generate_series(0, 23) AS hour",
        [series],
    )
    while tallies.fold_all(conn):
        pass
    assert conn.execute("SELECT width, succeeded FROM qworker.stat_total").fetchall() == [(1_440, 24 * 216_000_000)]


def test_counts_reach_the_widest_period(conn: Connection) -> None:
    for minute in range(180):
        flush(conn, minute + 1, back=f"40 h {minute} min")
        while tallies.fold_flushed(conn):
            pass
    before = conn.execute(SUMS).fetchall()
    for fold in FOLDS:
        while tallies.fold(conn, *fold):
            pass
    assert conn.execute(SUMS).fetchall() == before
    assert before[0][0] == 180
    rows = conn.execute("SELECT width, count(*), sum(succeeded) FROM qworker.stat GROUP BY width").fetchall()
    assert [(width, total) for width, _, total in rows] == [(60, 180)]
    assert rows[0][1] in (3, 4)
    assert conn.execute("SELECT bool_and(at = date_trunc('hour', at)) FROM qworker.stat").fetchone() == (True,)


def test_a_period_ends_before_the_next_one_begins(conn: Connection) -> None:
    (series,) = tallies.series(conn, [("default", "send")])
    for minute in (59, 60, 61):
        conn.execute(
            "INSERT INTO qworker.stat (width, at, series, succeeded)"
            " VALUES (1, '2026-01-01Z'::timestamptz + make_interval(mins => %s), %s, 1)",
            [minute, series],
        )
    assert tallies.fold(conn, *FOLDS[0]) == 1
    rows = conn.execute("SELECT width, extract(epoch FROM at - '2026-01-01Z')::int / 60 FROM qworker.stat ORDER BY at")
    assert rows.fetchall() == [(10, 50), (1, 60), (1, 61)]


def test_what_is_read_by_minutes_stays_in_minutes(conn: Connection) -> None:
    flush(conn, 1, back="65 min")
    tallies.fold_flushed(conn)
    for fold in FOLDS:
        tallies.fold(conn, *fold)
    assert conn.execute("SELECT width FROM qworker.stat").fetchall() == [(1,)]


def test_four_nodes_move_each_count_once_although_one_dies(database: Database, conn: Connection) -> None:
    """Folding is a statement: what a session that is terminated has not committed is moved by another."""
    for seq in range(1, 401):
        flush(conn, seq, back=f"40 h {seq} min", failed=1)
    with ExitStack() as stack:
        nodes = [stack.enter_context(connect(database.dsn, f"node {n}")) for n in range(4)]
        dying = nodes[0]
        began = threading.Event()

        def die() -> None:
            with suppress(psycopg.OperationalError), dying.transaction():
                tallies.fold_flushed(dying)
                tallies.fold(dying, *FOLDS[0])
                began.set()
                dying.execute("SELECT pg_sleep(10)")

        def move(node: Connection) -> None:
            began.wait()
            for _ in range(3):
                while tallies.fold_flushed(node):
                    pass
                while tallies.fold_all(node):
                    pass

        threads = [threading.Thread(target=die), *(threading.Thread(target=move, args=(node,)) for node in nodes[1:])]
        for thread in threads:
            thread.start()
        began.wait()
        conn.execute("SELECT pg_terminate_backend(%s)", (dying.info.backend_pid,))
        for thread in threads:
            thread.join()
        move(nodes[1])
    assert conn.execute(SUMS).fetchall() == [(400, 400, 200.0, 1200, 1200)]
    assert conn.execute("SELECT count(*) FROM qworker.stat_flush").fetchone() == (0,)
    assert conn.execute("SELECT DISTINCT width FROM qworker.stat").fetchall() == [(60,)]
    assert conn.execute("SELECT sum(succeeded) FROM qworker.stat_total").fetchone() == (400,)
    by_queue = conn.execute("SELECT queue, sum(succeeded) FROM qworker.stat_queue GROUP BY queue").fetchall()
    assert dict(by_queue) == {"": 400, "default": 400}


def test_what_is_too_old_is_deleted(conn: Connection) -> None:
    flush(conn, 1, back="1 min")
    tallies.fold_flushed(conn)
    for table, width in (("stat", 60), ("stat_queue", 60), ("stat_total", 1_440)):
        back = sql.SQL("UPDATE {} SET width = %s, at = at - interval '40 days'").format(
            sql.Identifier("qworker", table)
        )
        conn.execute(back, [width])
    conn.execute("UPDATE qworker.series SET last_seen = last_seen - 50")
    conn.execute("UPDATE qworker.stat_source SET written_at = written_at - interval '50 days'")
    conn.execute("UPDATE qworker.deployment SET first_seen = first_seen - interval '500 days'")
    conn.execute("INSERT INTO qworker.depth VALUES (now() - interval '8 days', '', 0, 0, 0, 0, 0, NULL, true)")
    flush(conn, 1, source=2)
    assert tallies.delete_old(conn) == 7, "a row of each kind, and two of the queue and the sum"
    assert tallies.delete_old(conn) == 0
    counts = [
        conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("qworker", table))).fetchone()
        for table in ("stat", "stat_total", "stat_queue", "depth", "deployment", "stat_source", "series")
    ]
    assert counts == [(0,), (0,), (0,), (0,), (0,), (1,), (1,)], "the series is counted again: its day was noted"


def test_the_first_write_of_a_version_is_its_mark(conn: Connection) -> None:
    flush(conn, 1)
    ((first,),) = conn.execute("SELECT first_seen FROM qworker.deployment WHERE version = '1.0'").fetchall()
    flush(conn, 2)
    assert conn.execute("SELECT first_seen FROM qworker.deployment").fetchall() == [(first,)]
