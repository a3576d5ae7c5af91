"""The state of the cluster that the scheduler leaves for the exporter."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import App, cluster
from qworker.db.connection import connect
from qworker.findings import Finding, Severity
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.scheduler.gauges import Gauges
from qworkerd.shared.board import MAX_BYTES
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def node(database: Database) -> NodeContext:
    return make_node(App(), Settings(dsn=database.dsn, processes=1))


def read(conn: Connection, node: NodeContext, findings: tuple[Finding, ...] = ()) -> dict[str, Any]:
    Gauges(node, lambda: findings).read(conn)
    found: dict[str, Any] = json.loads(node.board.read())
    assert boottime() - found["read_at"] < 60
    return found


def declare(conn: Connection, name: str, expression: str, last_tick: str, timezone: str = "UTC") -> None:
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, last_tick)"
        " VALUES (%s, 't', %s, %s, 1, clock_timestamp() - %s::interval)",
        (name, expression, timezone, last_tick),
    )


def test_schedules_are_late_by_the_time_since_their_next_tick(conn: Connection, node: NodeContext) -> None:
    declare(conn, "each minute", "* * * * *", "10 minutes")
    declare(conn, "on time", "* * * * *", "0 seconds")
    declare(conn, "paused", "* * * * *", "1 day")
    declare(conn, "elsewhere", "* * * * *", "1 day", timezone="Mars/Olympus")
    declare(conn, "edited", "not a schedule", "1 day")
    declare(conn, "in the far future", "* * * * *", "-50000 years")
    conn.execute("UPDATE qworker.cron SET paused_at = now(), paused_by = 'ada' WHERE name = 'paused'")
    late = read(conn, node)["late"]
    assert late.keys() == {"each minute", "on time"}
    assert 8 * 60 < late["each minute"] < 11 * 60
    assert late["on time"] == 0


def test_findings_are_counted_by_check(conn: Connection, node: NodeContext) -> None:
    found = (
        Finding("unserved-queue", "a", Severity.STOPS, ""), Finding("unserved-queue", "b", Severity.STOPS, ""),
        Finding("silent-node", "node 1", Severity.WARNING, ""),
    )  # fmt: skip
    assert read(conn, node, found)["findings"] == [["unserved-queue", "stops", 2], ["silent-node", "warning", 1]]


def test_an_old_sample_is_left_out(conn: Connection, node: NodeContext) -> None:
    insert = (
        "INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)"
        " VALUES (now() - %s::interval, 'mail', 5, 0, 0, 0, 0, 1.0, true)"
    )
    conn.execute(insert, ("1 hour",))
    assert read(conn, node)["queues"] == {}
    conn.execute(insert, ("1 minute",))
    assert read(conn, node)["queues"]["mail"]["available"] == 5


def test_thousands_of_queues_and_schedules_fit_on_the_board(
    conn: Connection, node: NodeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute(
        "INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)"
        " SELECT now(), repeat('é', 190) || n, n, 0, 0, 0, 0, 1.0, true FROM generate_series(1, 5000) AS n"
    )
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, last_tick)"
        " SELECT 'schedule ' || n, 't', '* * * * *', 'UTC', 1, now() - make_interval(mins => n)"
        "   FROM generate_series(1, 60) AS n"
    )
    monkeypatch.setattr(cluster, "MAX_SCHEDULES", 50)
    found = read(conn, node)
    assert len(found["queues"]) == cluster.MAX_QUEUES
    assert min(depth["available"] for depth in found["queues"].values()) == 5000 - cluster.MAX_QUEUES + 1
    assert len(found["late"]) == 50
    assert min(found["late"].values()) > 9 * 60
    assert len(node.board.read().encode()) < MAX_BYTES
