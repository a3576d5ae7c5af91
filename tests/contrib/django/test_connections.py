"""Django's ways to keep connections, in web processes and in nodes; several databases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest
from django.db import connections, transaction
from django.test import override_settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from qworker.contrib.django.api import TaskResultStatus, task_backends
from qworker.contrib.django.application import application
from qworker.contrib.django.database import dsn
from qworker.contrib.django.node import load
from qworker.migrations import migrate
from tests.contrib.django.settings import BACKEND, TASKS
from tests.contrib.django.settings import database as entry
from tests.contrib.django.shop import tasks
from tests.database import Database
from tests.lifecycle.node import Node

Burst = Callable[..., Node]
pooled = pytest.mark.skipif(django.VERSION < (5, 1), reason="the option `pool` came with Django 5.1")


@pytest.fixture
def configure(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change the entry of the database in this process, before its first connection."""

    def configure(**changes: Any) -> None:
        connections.close_all()
        monkeypatch.setitem(connections.settings, "default", {**connections.settings["default"], **changes})
        if hasattr(connections._connections, "default"):
            del connections["default"]

    yield configure
    wrapper = connections["default"]
    wrapper.close()
    if wrapper.settings_dict["OPTIONS"].get("pool"):
        wrapper.close_pool()


def pid() -> int:
    connections["default"].ensure_connection()
    return int(connections["default"].connection.info.backend_pid)


def test_jobs_use_the_persistent_connection(configure: Callable[..., None]) -> None:
    configure(CONN_MAX_AGE=None)
    before = pid()
    result = tasks.echo.enqueue(1)
    with transaction.atomic():
        tasks.echo.enqueue(2)
        result.refresh()
    assert pid() == before
    kept = task_backends["default"].app.pool._per_process.values()
    assert not any(connections.idle for connections in kept), "no connection of its own remains"


@pytest.mark.parametrize("checks", [False, True])
def test_a_connection_that_the_server_has_closed_is_replaced(
    configure: Callable[..., None], database: Database, checks: bool
) -> None:
    configure(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=checks)
    before = pid()
    with database.connect() as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
    result = tasks.echo.enqueue(1)
    assert tasks.echo.get_result(result.id) == result
    assert pid() != before


@pooled
def test_jobs_use_the_pool_of_django(configure: Callable[..., None]) -> None:
    configure(CONN_MAX_AGE=0, OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    with transaction.atomic():
        result = tasks.echo.enqueue(1)
        assert tasks.echo.get_result(result.id) == result
    first = pid()
    connections["default"].close()  # to the pool
    assert tasks.echo.get_result(result.id).args == [1]
    assert pid() == first


def entries(dsn: str, **changes: Any) -> str:
    """Return what the settings of a node read."""
    return repr({"default": entry(dsn, **changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
        {"CONN_MAX_AGE": 0},
        pytest.param({"OPTIONS": {"pool": True}}, marks=pooled),
    ],
    ids=["persistent", "each job", "pool"],
)
def test_a_node_runs_jobs_with_connections_that_were_open_before_the_fork(
    burst: Burst, site: Path, database: Database, changes: dict[str, Any]
) -> None:
    results = [tasks.queries.enqueue() for _ in range(5)]
    burst(SHOP_DATABASES=entries(database.dsn, **changes), SHOP_QUERIES_AT_IMPORT="1", QWORKER_PROCESSES="2")
    pids = set()
    for result in results:
        result.refresh()
        assert result.status == TaskResultStatus.SUCCESSFUL, result.errors
        own, parent = result.return_value
        pids.add(own)
        assert own != parent, "a session of its own"
    assert len(pids) > 1 if changes.get("CONN_MAX_AGE", 1) == 0 else len(pids) <= 4


#: A name that SQL, libpq and the server each quote in their own way.
ROLE = "The \\boss's 'role'"


@pytest.fixture
def clerk(database: Database) -> Iterator[dict[str, Any]]:
    """An entry of a role that may do nothing itself, and has to assume another one."""
    with database.connect() as conn:
        boss = sql.Identifier(ROLE)
        conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN SUPERUSER").format(boss))
        conn.execute("CREATE ROLE clerk LOGIN NOINHERIT PASSWORD 'pw'")
        conn.execute(sql.SQL("GRANT {} TO clerk").format(boss))
    yield entry(make_conninfo(database.dsn, user="clerk", password="pw"), OPTIONS={"assume_role": ROLE})
    connections.close_all()
    with database.connect() as conn:
        conn.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'clerk'")
        conn.execute(sql.SQL("DROP ROLE clerk, {}").format(boss))


def test_all_connections_assume_the_role_of_the_database(
    configure: Callable[..., None], burst: Burst, clerk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=54321")
    configure(**clerk)
    app = application("default")
    with app.pool.connection() as conn:
        assert conn.execute("SELECT session_user, current_user").fetchone() == ("clerk", ROLE)
        conn.execute("SET ROLE none")
        conn.execute("RESET ROLE")
        assert conn.execute("SELECT current_user").fetchone() == (ROLE,)
    with psycopg.connect(dsn("default")) as plain:
        assert plain.execute("SHOW statement_timeout").fetchone() == ("54321ms",)
    result = tasks.queries.enqueue()
    burst(SHOP_DATABASES=repr({"default": clerk}))
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL, result.errors


@pytest.fixture
def second(database: Database, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Another database of the same server, with tables, as the alias `second`."""
    with database.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS qworker_second")
        conn.execute("CREATE DATABASE qworker_second")
    dsn = make_conninfo(database.dsn, dbname="qworker_second")
    with psycopg.connect(dsn) as conn:
        migrate(conn)
    monkeypatch.setitem(connections.settings, "second", {**connections.settings["default"], **entry(dsn)})
    yield dsn
    connections["second"].close()
    del connections["second"]
    with database.connect() as conn:
        conn.execute("DROP DATABASE qworker_second")  # nothing holds a connection


def test_each_backend_has_its_jobs_in_its_own_database(second: str) -> None:
    other = {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"database": "second"}}
    with override_settings(TASKS={**TASKS, "reports": other}):
        with transaction.atomic(), transaction.atomic(using="second"):
            ours, theirs = tasks.echo.enqueue(1), tasks.reported.enqueue()
            assert task_backends["reports"].get_result(theirs.id) == theirs
            transaction.set_rollback(True, using="default")
        app = application("reports")
        assert [job.task for job in app.admin.find()] == ["tests.contrib.django.shop.tasks.reported"]
        assert task_backends["default"].app.admin.find() == [], f"{ours.id} was rolled back with its own block"
        kept = tasks.reported.enqueue()
        assert {job.id for job in app.admin.find()} == {int(theirs.id), int(kept.id)}
        app.close()


def test_the_project_may_have_its_jobs_in_another_database(second: str) -> None:
    with override_settings(TASKS={}, QWORKER={"DATABASE": "second"}):
        app = load("default")
        task = app.task(name="elsewhere")(lambda: None)
        with transaction.atomic(using="second"):
            job = task.enqueue()
            assert app.job(job.id).state == "available"
            transaction.set_rollback(True, using="second")
        assert app.admin.find() == []
        with transaction.atomic():  # of another database
            job = task.enqueue()
            transaction.set_rollback(True)
        assert [found.id for found in app.admin.find()] == [job.id]
        app.close()
