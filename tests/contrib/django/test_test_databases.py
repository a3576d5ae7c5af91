"""Tests of a Django project: their databases have the schema, no job leaks to the next test, and all are dropped."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from qworker.migrations import shipped
from qworkerd.embedded import EmbeddedPostgres
from tests.contrib.django.settings import database as entry
from tests.database import Database
from tests.project import Project

SETTINGS = """
import json
import os

SECRET_KEY = "tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["qworker.contrib.django", "shop"]
DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
QWORKER = json.loads(os.environ.get("SHOP_QWORKER", "{}"))
"""
MODELS = """
from django.db import models


class Order(models.Model):
    customer = models.TextField()
"""
JOBS = """
from qworker.contrib.django import app


@app.task
def ship(order):
    return order
"""
#: Jobs that are committed, in a thread with a connection of its own as well, and jobs in the transaction of a test.
TESTS = """
from concurrent.futures import ThreadPoolExecutor

from django.db import connections
from django.test import TestCase, TransactionTestCase

from qworker.contrib.django import app
from qworker.contrib.django.models import Job
from shop.jobs import ship


def in_a_thread(call):
    def run():
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


class Rolled(TestCase):
    def test_one(self):
        ship.enqueue(1)
        self.assertEqual(Job.objects.count(), 1)
        self.assertEqual(len(app.admin.find()), 1)

    test_two = test_one


class Committed(TransactionTestCase):
    def test_one(self):
        self.assertEqual(Job.objects.count(), 0)
        self.assertIsNone(app.queue("mail").paused)
        ship.options(unique="key").enqueue(1)
        in_a_thread(lambda: ship.enqueue(2))
        done = ship.enqueue(3)
        self.assertTrue(done.cancel())
        app.queue("mail").pause()
        self.assertEqual(Job.objects.count(), 3)
        self.assertEqual(in_a_thread(Job.objects.count), 3)

    test_two = test_three = test_one


class Serialized(TransactionTestCase):
    serialized_rollback = True

    def test_one(self):
        self.assertEqual(Job.objects.count(), 0)
        ship.enqueue(1)

    test_two = test_one
"""


@pytest.fixture
def shop(postgres_server: EmbeddedPostgres, empty_database: Database, tmp_path: Path) -> Iterator[Project]:
    database = json.dumps(entry(empty_database.dsn))
    with Project(tmp_path, empty_database.dsn, DJANGO_SETTINGS_MODULE="settings", SHOP_DATABASE=database) as project:
        project.write("settings.py", SETTINGS)
        project.write("shop/__init__.py", "")
        project.write("shop/models.py", MODELS)
        project.write("shop/jobs.py", JOBS)
        project.write("shop/tests.py", TESTS)
        yield project
    with psycopg.connect(postgres_server.dsn, autocommit=True) as conn:
        for name in databases(conn, json.loads(database)["NAME"]):
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def run(shop: Project) -> Callable[..., str]:
    """Run a test runner to its end; return what it printed, which is no error."""

    def run(*words: str, **environment: Any) -> str:
        environment = {name: json.dumps(value) for name, value in environment.items()}
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=shop.folder, env=shop._environment | environment, check=False,
            capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def left(empty_database: Database) -> Callable[[], list[str]]:
    """Return the databases of tests that exist."""
    name = psycopg.conninfo.conninfo_to_dict(empty_database.dsn)["dbname"]
    return lambda: databases(empty_database.connect(), str(name))


def databases(conn: psycopg.Connection[Any], name: str) -> list[str]:
    return [found for (found,) in conn.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [f"^test_{name}"])]


def test_the_runner_of_django(run: Callable[..., str], left: Callable[[], list[str]]) -> None:
    assert "Ran 7 tests" in run("django", "test")
    assert left() == []


def test_processes_beside_each_other(run: Callable[..., str], left: Callable[[], list[str]]) -> None:
    printed = run("django", "test", "--parallel", "2", "-v", "2")
    assert "Cloning test database" in printed
    assert "Ran 7 tests" in printed
    assert left() == []


def test_a_database_that_is_kept(run: Callable[..., str], left: Callable[[], list[str]]) -> None:
    for _ in range(2):
        assert "Ran 7 tests" in run("django", "test", "--keepdb")
    assert len(left()) == 1
    assert "Ran 7 tests" in run("django", "test", "--keepdb", SHOP_QWORKER={"SCHEMA": "renamed"})


@pytest.mark.parametrize("options", [[], ["--reuse-db"], ["--nomigrations"], ["-n", "2"]], ids="".join)
def test_pytest_django(
    run: Callable[..., str], shop: Project, left: Callable[[], list[str]], options: list[str]
) -> None:
    shop.write("pytest.ini", "[pytest]\npython_files = tests.py\n")
    for _ in range(1 + ("--reuse-db" in options)):
        assert "7 passed" in run("pytest", "-p", "no:cacheprovider", *options)
    assert len(left()) == ("--reuse-db" in options)


def test_flush_asks_once_and_deletes_both(shop: Project, run: Callable[..., str], empty_database: Database) -> None:
    run("django", "migrate", "--run-syncdb")
    conn = empty_database.connect()
    count = "SELECT (SELECT count(*) FROM qworker.jobs), (SELECT count(*) FROM shop_order)"
    conn.execute("INSERT INTO qworker.job (task) VALUES ('x')")
    conn.execute("INSERT INTO shop_order (customer) VALUES ('Ada')")
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds) VALUES ('n', '1', '{}', 1, 9)"
    )
    for answer, left in (("no", (1, 1)), ("yes", (0, 0))):
        done = subprocess.run(
            [sys.executable, "-m", "django", "flush"], cwd=shop.folder, env=shop._environment, check=False,
            capture_output=True, text=True, timeout=100, input=answer,
        )  # fmt: skip
        assert "and the jobs in its schema qworker" in done.stdout
        assert conn.execute(count).fetchone() == left, done.stderr
    assert conn.execute("SELECT count(*) FROM qworker.node").fetchone() == (1,)
    assert conn.execute("SELECT count(*) FROM qworker.migration").fetchone() == (len(shipped()),)
