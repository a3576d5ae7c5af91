"""One node of the cluster gathers statistics once a day."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from qworker import App
from qworker.db.connection import connect
from qworker.upkeep import Upkeep
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.scheduler import upkeep
from qworkerd.scheduler.upkeep import DailyUpkeep
from tests.database import Database


@pytest.fixture
def conn(database: Database) -> Iterator[Any]:
    with connect(database.dsn, "test", lock_timeout=0.2) as conn:
        yield conn


@pytest.fixture
def daily(database: Database) -> DailyUpkeep:
    node = make_node(App(database.dsn), Settings(dsn=database.dsn, processes=1))
    node.table.header.node = 5
    return DailyUpkeep(node)


def test_the_node_with_the_lowest_id_does_it_once_a_day(
    conn: Any, daily: DailyUpkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not daily.run(conn, [9, 3])
    assert daily.run(conn, [9, 6])
    assert not daily.run(conn, [])
    later = time.monotonic() + upkeep.INTERVAL
    monkeypatch.setattr(upkeep, "time", SimpleNamespace(monotonic=lambda: later))
    assert daily.run(conn, [])


def test_what_takes_too_long_is_left_to_the_command(
    conn: Any, daily: DailyUpkeep, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.dsn) as other, capture_logs() as logs:
        other.execute("LOCK TABLE qworker.job_history IN SHARE UPDATE EXCLUSIVE MODE")
        assert not daily.run(conn, [])
    assert [entry["event"] for entry in logs] == ["history.analyze_skipped"]
    assert "qworker db maintain" in logs[0]["hint"]
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_the_size_of_the_database_is_measured_once_a_day(conn: Any, daily: DailyUpkeep) -> None:
    conn.execute("INSERT INTO qworker.size VALUES ('2020-01-01', '2020-01-01', 1, 1)")
    assert daily.run(conn, [])
    ((day, size, schema_size),) = conn.execute(
        "SELECT day = (clock_timestamp() AT TIME ZONE 'UTC')::date, database_bytes, schema_bytes FROM qworker.size"
    ).fetchall()
    assert day
    assert size > schema_size > 100_000
    assert not Upkeep().measure(conn), "it was done today"
