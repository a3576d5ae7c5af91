"""The clock of the maintenance tasks."""

from time import monotonic

import psycopg
import pytest

from qworkerd.scheduler import maintenance, periodic
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.shared.counters import Counters
from tests.database import Database
from tests.waiting import until


def test_a_deferred_task_does_not_compete_with_the_first_jobs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "DEFERMENT", 0.5)
    ran: list[tuple[str, float]] = []
    tasks = MaintenanceTasks(lambda: None, Counters(1))
    tasks.add("now", 60.0, lambda _: ran.append(("now", monotonic())))
    started = monotonic()
    tasks.add("later", 60.0, lambda _: ran.append(("later", monotonic())), deferred=True)
    tasks.add("soon", 0.1, lambda _: ran.append(("soon", monotonic())), deferred=True)
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        tasks.run_due(conn)
        assert [name for name, _ in ran] == ["now"]

        def later() -> bool:
            tasks.run_due(conn)
            return "later" in dict(ran)

        until(later)
    first = dict(reversed(ran))
    assert 0.1 <= first["soon"] - started < first["later"] - started
    assert first["later"] - started >= 0.5
    assert [name for name, _ in ran].count("now") == 1


def test_runs_durations_and_errors_are_counted(database: Database) -> None:
    counters = Counters(1)
    counters.bind(0)
    tasks = MaintenanceTasks(lambda: None, counters)

    def fail(conn: psycopg.Connection[tuple[object, ...]]) -> None:
        conn.execute("SELECT 1 / 0")

    with psycopg.connect(database.dsn, autocommit=True) as conn:
        tasks.attempt(conn, "sleep", lambda d: d.execute("SELECT pg_sleep(0.05)"))
        tasks.attempt(conn, "fail", fail)
        tasks.attempt(conn, "fail", fail)
    found = counters.read()
    assert (found["ran sleep"], found["ran fail"], found["failed fail"]) == (1, 2, 2)
    assert "failed sleep" not in found
    assert 50_000 <= found["took sleep"] < 10_000_000


def test_some_tasks_are_done_less_often_while_nothing_happens(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, quiet, ran = 1000.0, True, list[str]()
    for module in (maintenance, periodic):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    tasks = MaintenanceTasks(lambda: None, Counters(1), lambda: quiet)
    tasks.add("usual", 10.0, lambda _: ran.append("usual"))
    tasks.add("rare", 10.0, lambda _: ran.append("rare"), quiet_interval=45.0)
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        tasks.run_due(conn)
        ran.clear()
        for _ in range(9):
            now += 10.0
            tasks.run_due(conn)
        assert (ran.count("usual"), ran.count("rare")) == (9, 1)
        quiet = False
        tasks.run_due(conn)
        assert ran.count("rare") == 2, "at once when something happens"
