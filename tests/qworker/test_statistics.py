"""The read side of statistics: counts, percentiles, charts, sizes and load."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import psycopg
import pytest

from qworker.counts import Counts, Durations, total
from qworker.db.connection import connect
from qworker.histogram import MILLISECOND, bucket_of
from qworker.migrations import migrate
from qworker.statistics import PERIODS, STEPS, Statistics
from qworker.tallies import Tallies
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

tallies, statistics = Tallies(), Statistics()


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


class Writer:
    """Writes counts as nodes do."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.seq = 0

    def write(self, queue: str, task: str, *, back: str = "2 min", version: str = "1", **counts: Any) -> None:
        self.seq += 1
        with self.conn.transaction():
            (series,) = tallies.series(self.conn, [(queue, task)])
            tallies.flush(
                self.conn, source=1, seq=self.seq, version=version, series=[series],
                counts=json.dumps([{"series": series, **counts}]),
            )  # fmt: skip
            self.conn.execute("UPDATE qworker.stat_flush SET at = at - %s::interval", (back,))
        tallies.fold_flushed(self.conn)


@pytest.fixture
def writer(conn: Connection) -> Writer:
    return Writer(conn)


def durations(seconds: list[float]) -> tuple[list[int], list[int]]:
    counts = sorted(Counter(map(bucket_of, seconds)).items())
    return [bucket for bucket, _ in counts], [number for _, number in counts]


def test_counts_and_percentiles_are_those_of_the_jobs(conn: Connection, writer: Writer) -> None:
    """As percentile_cont says over the same jobs, within 9 %."""
    draw = random.Random(7)
    runs = [draw.lognormvariate(-1.0, 1.5) + 0.001 for _ in range(3_000)]
    conn.execute("CREATE TEMP TABLE runs AS SELECT unnest(%s::float8[]) AS run", (runs,))
    for start in range(0, 3_000, 500):
        part = runs[start : start + 500]
        buckets, numbers = durations(part)
        writer.write("mail", "send", succeeded=500, run_seconds=sum(part), run_bucket=buckets, run_count=numbers)
    writer.write("mail", "send", failed=3, raised=4, timed_out=1, signalled=2, oom=1, node_lost=5)
    ((series),) = statistics.tasks(conn, PERIODS["1h"])
    counts = series.counts
    assert (series.queue, series.task, counts.succeeded, counts.failed) == ("mail", "send", 3_000, 3)
    assert (counts.crashed, counts.lost, counts.attempts) == (3, 5, 3_008)
    assert counts.failure_ratio == pytest.approx(8 / 3_008)
    assert counts.run.mean == pytest.approx(sum(runs) / 3_000)
    for fraction in (0.5, 0.95, 0.99):
        ((exact,),) = conn.execute("SELECT percentile_cont(%s) WITHIN GROUP (ORDER BY run) FROM runs", (fraction,))
        assert counts.run.quantile(fraction) == pytest.approx(exact, rel=0.09)
    assert counts.wait.quantile(0.5) is None


def test_periods_add_all_widths(conn: Connection, writer: Writer) -> None:
    for back in ("2 min", "3 h", "3 days", "20 days", "31 days"):
        writer.write("mail", "send", back=back, succeeded=1)
    for _ in range(3):
        tallies.fold(conn, 1, 10, 4_200.0)
        tallies.fold(conn, 10, 60, 90_000.0)
    found = {name: statistics.tasks(conn, period)[0].counts.succeeded for name, period in PERIODS.items()}
    assert found == {"1h": 1, "24h": 2, "7d": 3, "30d": 4}


AGES = ("2 min", "40 min", "2 h", "9 h", "23 h", "24 h 30 min", "26 h", "47 h", "50 h", "3 days", "6 days 12 h",
        "9 days", "20 days", "29 days 12 h", "30 days 3 h", "31 days")  # fmt: skip


@pytest.mark.parametrize("period", [3_600.0, 4_000.0, 50_000.0, *PERIODS.values(), 200_000.0, 1_000_000.0])
@pytest.mark.parametrize("ago", [None, "0 s", "7 h", "30 h", "4 days", "10 days 5 h"])
def test_totals_and_charts_add_what_stat_has(moved: Connection, period: float, ago: str | None) -> None:
    """They read other tables, in which counts stand in longer periods, and only the ends of a period from `stat`."""
    until = None if ago is None else moved.execute("SELECT now() - %s::interval", (ago,)).fetchall()[0][0]
    expected = moved.execute(
        "SELECT n.queue, n.task, sum(s.succeeded) FROM qworker.stat AS s JOIN qworker.series AS n ON n.id = s.series"
        " WHERE s.at >= coalesce(%s, now()) - make_interval(secs => %s)"
        " AND s.at < coalesce(%s::timestamptz, 'infinity')"
        " GROUP BY n.queue, n.task ORDER BY n.queue, n.task", (until, period, until),
    ).fetchall()  # fmt: skip
    found = statistics.tasks(moved, period, until=until)
    assert [(one.queue, one.task, one.counts.succeeded) for one in found] == expected
    queues = Counter[str]()
    for queue, _, jobs in expected:
        queues[queue] += jobs
    assert {one.queue: one.counts.succeeded for one in statistics.queues(moved, period, until=until)} == queues
    for queue, jobs in [(None, sum(queues.values())), *queues.items()]:
        points = statistics.chart(moved, period, 14_400.0, until=until, queue=queue)
        assert sum(point.counts.succeeded for point in points) == jobs


@pytest.fixture(scope="module")
def moved(postgres_server: EmbeddedPostgres) -> Iterator[Connection]:
    """Counts of a month, moved as far as nodes move them."""
    database = Database.create(postgres_server, f"qworker_moved_{token_hex(4)}")
    try:
        with database.connect() as conn:
            migrate(conn)
        with connect(database.dsn, "test") as conn:
            writer = Writer(conn)
            for number, age in enumerate(AGES):
                for queue, task in (("mail", "send"), ("mail", "receive"), ("default", "send")):
                    writer.write(queue, task, back=age, succeeded=2**number)
            while tallies.fold_all(conn):
                pass
            widths = conn.execute("SELECT DISTINCT width FROM qworker.stat_total ORDER BY width").fetchall()
            assert widths[-2:] == [(60,), (1_440,)], "some are in days, and some are not"
            yield conn
    finally:
        database.drop(postgres_server)


def test_an_interval_of_the_past_has_its_own_counts(conn: Connection, writer: Writer) -> None:
    for minutes in (5, 15, 25):
        writer.write("mail", "send", back=f"{minutes} min", version=f"1.{minutes}", succeeded=minutes)
    conn.execute("UPDATE qworker.deployment SET first_seen = first_seen - substr(version, 3)::int * interval '1 min'")
    conn.execute(
        "INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, exact)"
        " SELECT now() - m * interval '1 min', '', m, 0, 0, 0, 0, true FROM unnest(ARRAY[5, 15, 25]) AS m"
    )
    until = datetime.now(UTC) - timedelta(minutes=10)

    assert [one.counts.succeeded for one in statistics.tasks(conn, 600, until=until, task="send")] == [15]
    assert [one.counts.succeeded for one in statistics.queues(conn, 600, until=until)] == [15]
    assert [one.counts.succeeded for one in statistics.chart(conn, 600, 60, until=until)] == [15]
    assert [one.available for one in statistics.depths(conn, 600, until=until)] == [15]
    assert [one.version for one in statistics.deployments(conn, 600, until=until)] == ["1.15"]


def test_queues_add_their_tasks(conn: Connection, writer: Writer) -> None:
    for queue, task in (("mail", "send"), ("mail", "receive"), ("default", "send")):
        writer.write(queue, task, succeeded=2, run_bucket=[20], run_count=[2], run_seconds=1.0)
    found = {series.queue: series for series in statistics.queues(conn, 3_600)}
    assert {name: (one.task, one.counts.succeeded, one.counts.run.count) for name, one in found.items()} == {
        "default": (None, 2, 2),
        "mail": (None, 4, 4),
    }
    assert [one.queue for one in statistics.tasks(conn, 3_600, task="send")] == ["default", "mail"]
    assert [one.task for one in statistics.tasks(conn, 3_600, queue="mail")] == ["receive", "send"]
    assert statistics.names(conn) == [("default", "send"), ("mail", "receive"), ("mail", "send")]


def test_a_chart_has_a_point_for_each_step(conn: Connection, writer: Writer) -> None:
    for minutes in (2, 2, 5, 30):
        writer.write("mail", "send", back=f"{minutes} min", succeeded=1)
        writer.write("mail", "receive", back=f"{minutes} min", succeeded=10)
    points = statistics.chart(conn, 3_600, STEPS["1h"])
    assert [point.counts.succeeded for point in points] == [11, 11, 22]
    assert all(point.at.second == 0 for point in points)
    assert points[-1].at - points[0].at == timedelta(minutes=28)
    assert [point.counts.succeeded for point in statistics.chart(conn, 3_600, 60, task="send")] == [1, 1, 2]


def test_versions_have_marks(conn: Connection, writer: Writer) -> None:
    writer.write("mail", "send", version="1.0", succeeded=1)
    writer.write("mail", "send", version="1.1", succeeded=1)
    marks = statistics.deployments(conn, 60)
    assert [mark.version for mark in marks] == ["1.0", "1.1"]
    assert datetime.now(UTC) - marks[0].at < timedelta(minutes=1)


def test_depths_are_read_at_intervals(conn: Connection) -> None:
    conn.execute("""
        INSERT INTO qworker.depth
        SELECT now() - make_interval(secs => 15 * n), queue, n, 0, 0, 0, 0, NULL, true
          FROM generate_series(0, 19) AS n, unnest(ARRAY['', 'mail']) AS queue""")
    assert [depth.available for depth in statistics.depths(conn, 90)] == [5, 4, 3, 2, 1, 0]
    assert len(statistics.depths(conn, 3_600, queue="mail")) == 20
    assert len(statistics.depths(conn, 3_600, queue="mail", step=60)) in (5, 6)


def test_the_load_says_how_many_workers_are_wanted(conn: Connection, writer: Writer) -> None:
    conn.execute("INSERT INTO qworker.job (queue, task, enqueued_at) SELECT 'mail', 'send', now() - interval '30 s'"
                 " FROM generate_series(1, 120)")  # fmt: skip
    conn.execute(
        "INSERT INTO qworker.job (queue, task, state) VALUES ('mail', 'send', 'running'), ('new', 'x', 'running')"
    )
    conn.execute("INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds)"
                 " VALUES ('a', '1', '{mail,default}', 4, 30), ('b', '1', '{mail}', 2, 30)")  # fmt: skip
    writer.write("mail", "send", succeeded=36, run_seconds=72.0, run_bucket=[60], run_count=[36])
    found = {load.queue: load for load in statistics.load(conn)}
    assert found.keys() == {"default", "mail", "new"}
    mail = found["mail"]
    assert (mail.available, mail.due, mail.running, mail.workers) == (120, 0, 1, 6)
    assert mail.oldest_seconds == pytest.approx(30, abs=3)
    assert mail.mean_run_seconds == 2.0
    assert mail.rate == pytest.approx(0.1)
    assert mail.wanted_workers == 5, "240 s of work in a minute, and 0.2 s in each second"
    assert mail.drain_seconds == 40.0
    assert (found["default"].wanted_workers, found["new"].drain_seconds) == (0, None)
    assert [load.queue for load in statistics.load(conn, queue="mail", target_drain=10)] == ["mail"]


def test_the_load_of_a_queue_that_was_idle_reckons_with_what_its_jobs_took_before(
    conn: Connection, writer: Writer
) -> None:
    """Reports that take 100 s and have not run for ten minutes: no guess of a second, which would start no worker."""
    conn.execute("INSERT INTO qworker.job (queue, task)"
                 " SELECT queue, 'send' FROM unnest(ARRAY['slow', 'old']) AS queue, generate_series(1, 9)")  # fmt: skip
    conn.execute("INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds)"
                 " VALUES ('a', '1', '{slow,old,idle}', 3, 30)")  # fmt: skip
    for queue in ("slow", "old", "idle"):
        writer.write(queue, "send", succeeded=1, retried=1, timed_out=2, run_seconds=400.0,
                     run_bucket=[60], run_count=[4])  # fmt: skip
    for table in ("stat", "stat_queue"):
        conn.execute(f"UPDATE qworker.{table} SET at = at - interval '20 minutes'".encode())  # noqa: S608
    conn.execute("UPDATE qworker.stat_queue SET at = at - interval '2 days' WHERE queue = 'old'")
    found = {load.queue: load for load in statistics.load(conn)}
    slow = found["slow"]
    assert (slow.mean_run_seconds, slow.rate, slow.wanted_workers, slow.drain_seconds) == (100.0, 0.0, 15, 300.0)
    assert (found["old"].mean_run_seconds, found["old"].drain_seconds) == (None, 3.0)
    assert (found["idle"].mean_run_seconds, found["idle"].wanted_workers) == (None, 0)


def test_a_queue_without_statistics_wants_a_worker(conn: Connection) -> None:
    conn.execute("INSERT INTO qworker.job (queue, task, state, run_at) VALUES ('mail', 'send', 'scheduled', now())")
    (load,) = statistics.load(conn)
    assert (load.available, load.due, load.wanted_workers, load.drain_seconds) == (0, 1, 1, None)


def test_counts_of_several_queues_are_added_with_their_histograms() -> None:
    one = Counts(succeeded=2, oom=1, wait=Durations({3: 1, 5: 2}, 1.5), run=Durations({20: 4}, 2.0, MILLISECOND))
    two = Counts(succeeded=5, failed=1, wait=Durations({5: 1}, 0.5), run=Durations({}, 0.0, MILLISECOND))
    found = total([one, two])
    assert (found.succeeded, found.failed, found.oom) == (7, 1, 1)
    assert (found.wait.buckets, found.wait.seconds) == ({3: 1, 5: 3}, 2.0)
    assert (found.run.count, found.run.instant) == (4, MILLISECOND)
    assert total([]) == Counts()


def test_the_load_of_a_long_queue_is_that_of_the_last_sample(conn: Connection) -> None:
    conn.execute("INSERT INTO qworker.job (queue, task) SELECT 'mail', 'send' FROM generate_series(1, 20)")
    found = []
    for age in ("2 minutes", "50 s"):
        conn.execute(
            "INSERT INTO qworker.depth SELECT clock_timestamp() - %s::interval, 'mail', 7000, 0, 0, 0, 0, NULL, false",
            (age,),
        )
        found += [load.available for most in (10, 21) for load in statistics.load(conn, most=most)]
    assert found == [10, 20, 7000, 20]
