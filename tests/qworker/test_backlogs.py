"""What waits in each queue: from the samples of the nodes, or counted if there are none."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.backlogs import MOST, Backlogs, QueueBacklog
from qworker.db.connection import connect
from qworker.depth import Depths
from qworker.statistics import RECENT, Statistics
from tests.database import Database
from tests.qworker.test_statistics import Writer, durations

Connection = psycopg.Connection[tuple[Any, ...]]

backlogs = Backlogs()


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


def node(conn: Connection, name: str = "here", queues: str = "{mail}", workers: int = 4, silent: str = "0 s") -> None:
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, heartbeat_at)"
        " VALUES (%s, '1', %s, %s, 30, clock_timestamp() - %s::interval)",
        (name, queues, workers, silent),
    )


def jobs(conn: Connection, queue: str, number: int, state: str = "available", run_at: str | None = None) -> None:
    conn.execute(
        "INSERT INTO qworker.job (queue, task, state, run_at, enqueued_at, failed_at)"
        " SELECT %(q)s, 'send', %(s)s::qworker.job_state, clock_timestamp() + %(run_at)s::interval,"
        " clock_timestamp() - interval '1 min', CASE WHEN %(s)s = 'failed' THEN clock_timestamp() END"
        " FROM generate_series(1, %(n)s)",
        {"q": queue, "n": number, "s": state, "run_at": run_at},
    )


def sample(conn: Connection) -> None:
    assert Depths().sample(conn, queues=[], priorities=[], watermarks=[]) > 0


def by_name(conn: Connection) -> dict[str, QueueBacklog]:
    return {found.queue: found for found in backlogs.read(conn).queues}


@pytest.mark.parametrize("sampled", [True, False])
def test_what_takes_too_long_to_count_is_estimated(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, *, sampled: bool
) -> None:
    """From the sample of the nodes, or else from one of the table; a whole sample of a small one is right."""
    for number in range(60):
        jobs(conn, f"queue-{number}", 5)
    jobs(conn, "mail", 30)
    jobs(conn, "mail", 6, "scheduled", "-1 s")
    jobs(conn, "mail", 2, "scheduled", "1 h")
    jobs(conn, "mail", 1, "running")
    if sampled:
        sample(conn)
        jobs(conn, "mail", 100)
    monkeypatch.setattr("qworker.statistics.WALK_TIMEOUT", 0.001)
    (load,) = Statistics().load(conn, queue="mail")
    assert (load.available, load.due, load.running, load.exact) == (30, 6, 1, False)
    assert load.oldest_seconds == pytest.approx(60, abs=30)
    assert conn.execute("SHOW statement_timeout").fetchone() == ("30s",)
    monkeypatch.setattr("qworker.statistics.WALK_TIMEOUT", 30.0)
    (load,) = Statistics().load(conn, queue="mail")
    assert (load.available, load.exact) == (130 if sampled else 30, True)
    assert conn.execute("SHOW statement_timeout").fetchone() == ("30s",)


def test_without_a_sample_an_estimate_says_so(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):  # so that counting takes more than a millisecond, on any machine
        jobs(conn, f"queue-{number}", 5)
    jobs(conn, "mail", 3_000)
    assert by_name(conn)["mail"].exact
    monkeypatch.setattr("qworker.statistics.WALK_TIMEOUT", 0.001)
    assert (by_name(conn)["mail"].available, by_name(conn)["mail"].exact) == (3_000, False)


def test_a_sample_is_joined_with_nodes_pauses_and_run_times(conn: Connection, app: App) -> None:
    node(conn)
    node(conn, "there", "{mail,idle}", 2)
    node(conn, "gone", "{mail}", 9, silent="31 s")
    jobs(conn, "mail", 30)
    jobs(conn, "mail", 6, "scheduled", "-1 s")
    jobs(conn, "mail", 2, "scheduled", "1 h")
    jobs(conn, "mail", 3, "failed")
    jobs(conn, "unserved", 1)
    buckets, numbers = durations([2.0] * 90)
    Writer(conn).write("mail", "send", succeeded=90, run_seconds=180.0, run_bucket=buckets, run_count=numbers)
    app.admin.pause("unserved", reason="holidays", by="ada")
    app.admin.pause("empty")
    sample(conn)
    report = backlogs.read(conn)
    assert report.sampled_at is not None
    found = {one.queue: one for one in report.queues}
    assert list(found) == ["empty", "idle", "mail", "unserved"]
    mail = found["mail"]
    assert (mail.available, mail.due, mail.scheduled, mail.running, mail.failed) == (30, 6, 8, 0, 3)
    assert (mail.workers, mail.nodes, mail.exact, mail.capped) == (6, ("here", "there"), True, False)
    assert mail.waiting == 36
    assert mail.oldest_seconds == pytest.approx(60, abs=10)
    assert mail.mean_run_seconds == pytest.approx(2.0)
    assert mail.rate == pytest.approx(90 / RECENT)
    assert mail.drain_seconds == pytest.approx(36 * 2.0 / 6)
    assert found["idle"].drain_seconds == 0
    unserved = found["unserved"]
    assert (unserved.workers, unserved.drain_seconds) == (0, None)
    assert unserved.paused is not None
    assert (unserved.paused.by, unserved.paused.reason) == ("ada", "holidays")
    assert [one.queue for one in backlogs.read(conn, "mail").queues] == ["mail"]


def test_a_paused_queue_does_not_drain(conn: Connection, app: App) -> None:
    node(conn)
    jobs(conn, "mail", 3)
    app.admin.pause("mail")
    assert by_name(conn)["mail"].drain_seconds is None  # counted
    sample(conn)
    assert by_name(conn)["mail"].drain_seconds is None
    app.admin.resume("mail")
    assert by_name(conn)["mail"].drain_seconds == 0.75  # of jobs that are reckoned with a second


def test_without_a_recent_sample_jobs_are_counted_up_to_a_limit(conn: Connection, app: App) -> None:
    jobs(conn, "gone", 1)
    sample(conn)
    conn.execute("UPDATE qworker.depth SET at = at - interval '61 s'")
    conn.execute("DELETE FROM qworker.job")
    node(conn, workers=2)
    jobs(conn, "mail", 10)
    jobs(conn, "bulk", MOST + 5)
    jobs(conn, "bulk", 1, "failed")
    app.admin.pause("empty")
    report = backlogs.read(conn)
    assert report.sampled_at is None
    found = {one.queue: one for one in report.queues}
    assert list(found) == ["bulk", "empty", "mail"]
    assert (found["mail"].available, found["mail"].capped, found["mail"].drain_seconds) == (10, False, 5.0)
    assert (found["bulk"].available, found["bulk"].capped, found["bulk"].failed) == (MOST, True, None)
    assert found["bulk"].oldest_seconds == pytest.approx(60, abs=10)
    assert found["empty"].paused is not None


def test_an_empty_database_has_no_queues(conn: Connection) -> None:
    assert backlogs.read(conn).queues == ()


@pytest.mark.parametrize("name", ["/ ? # %", "\u202etxt.exe", "x" * 200, "'; DROP TABLE qworker.job; --"])
def test_a_hostile_name_is_a_name(conn: Connection, name: str) -> None:
    jobs(conn, name, 1)
    sample(conn)
    (found,) = backlogs.read(conn, name).queues
    assert (found.queue, found.available) == (name, 1)
