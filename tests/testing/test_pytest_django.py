"""The tests of a Django project, under the real pytest-django."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.testing.test_plugin import run

SETTINGS = """
import os

DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": {dbname!r}, "USER": {user!r}, "PASSWORD": {password!r},
    "HOST": {host!r}, "PORT": {port!r},
    "TEST": {{"NAME": {test!r}}},
}}}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
TASKS = {{"default": {{"BACKEND": "qworker.contrib.django.Backend", "QUEUES": []}}}}
USE_TZ = True
SECRET_KEY = "tests"
"""

JOBS = """
from typing import Any

from django.contrib.auth.models import User
from django.db import close_old_connections, connection, connections, transaction
from psycopg.conninfo import make_conninfo

from qworker import App
from qworker.contrib.django.application import application

if BACKEND:
    app = application()
else:
    def dsn():
        found = connection.settings_dict
        return make_conninfo(
            "", dbname=found["NAME"], user=found["USER"], password=found["PASSWORD"], host=found["HOST"],
            port=found["PORT"],
        )

    app = App(dsn)

committed: list[str] = []

@app.task(name="welcome", retry=False)
def welcome(user_id: int) -> Any:
    close_old_connections()
    name = User.objects.get(id=user_id).username
    with transaction.atomic(durable=True):
        transaction.on_commit(lambda: committed.append(name))
        User.objects.filter(id=user_id).update(first_name="welcome")
    if name == "mallory":
        raise ValueError(name)
    close_old_connections()
    connections.close_all()
    return name

def sign_up(name: str) -> User:
    with transaction.atomic():
        user = User.objects.create(username=name)
        welcome.enqueue(user.id)
    return user
"""

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    from django.db import connection
    from qworker.migrations import migrate

    with django_db_blocker.unblock():
        connection.ensure_connection()
        migrate(connection.connection)
"""

TESTS = """
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase, TransactionTestCase

from jobs import app, committed, sign_up, welcome
from qworker.testing import assert_enqueued, drain, refute_enqueued, truncate

def check(own_transaction=False):
    committed.clear()
    refute_enqueued(welcome)
    user = sign_up("eve")
    assert_enqueued(welcome, {"user_id": user.id}, count=1)
    before = connection.connection
    assert [a.result for a in drain(app)] == ["eve"]
    if not own_transaction:
        assert connection.connection is before
        assert not before.closed
    assert committed == ["eve"]
    user.refresh_from_db()
    assert user.first_name == "welcome"
    sign_up("mallory")
    with pytest.raises(ValueError, match="mallory"):
        drain(app)
    if not own_transaction:
        assert User.objects.filter(first_name="welcome").count() == 1, "the savepoint is rolled back"
    assert len(list(app.jobs())) == 2
    sign_up("left")

@pytest.mark.parametrize("n", range(2))
def test_with_the_fixture_db(db, n):
    check()

@pytest.mark.parametrize("n", range(2))
def test_with_transactions(transactional_db, n):
    try:
        check(own_transaction=True)
    finally:
        truncate(app)

class Signup(TestCase):
    def test_one(self):
        check()

    def test_two(self):
        with self.captureOnCommitCallbacks(execute=True):
            check()

class Committed(TransactionTestCase):
    def setUp(self):
        self.addCleanup(truncate, app)

    def test_one(self):
        check(own_transaction=True)

    def test_two(self):
        check(own_transaction=True)
"""


@pytest.fixture(params=["app", "backend"])
def project(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Path:
    parts = {name: str(value) for name, value in conninfo_to_dict(database.dsn).items()}
    parts["test"] = f"dj_test_{tmp_path.parent.name}_{request.param}".replace("-", "_")
    (tmp_path / "settings.py").write_text(SETTINGS.format(**parts))
    (tmp_path / "jobs.py").write_text(JOBS.replace("BACKEND", str(request.param == "backend")))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nDJANGO_SETTINGS_MODULE = settings\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_django_project_tests_its_jobs(project: Path, database: Database, options: tuple[str, ...]) -> None:
    done = run(project, *options, "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
    left = database.connect().execute(r"SELECT datname FROM pg_database WHERE datname LIKE 'dj\_test\_%'").fetchall()
    assert left == [], "no connection of the application has kept the test database from being dropped"


PROJECT = """
import time

import pytest
from django.contrib.auth.models import User
from django.db import connection

from jobs import app, sign_up, welcome
from qworker.testing import drain

@pytest.mark.parametrize("n", range(3))
def test_a_node_works_in_the_database_of_the_tests(qworker_node, n):
    assert list(app.jobs()) == []
    assert not User.objects.exists()
    assert connection.settings_dict["NAME"].startswith("dj_test_")
    user = sign_up("eve")
    (job,) = app.jobs()
    assert job.wait(timeout=20) == "eve"
    user.refresh_from_db()
    assert user.first_name == "welcome"

def test_jobs_are_left(qworker_node):
    welcome.options(delay=1).enqueue(1)

def test_a_database_without_a_node(qworker_app, qworker_db):
    assert qworker_app is app
    assert connection.settings_dict["NAME"] in qworker_db
    user = sign_up("bob")
    time.sleep(0.2)
    assert [attempt.result for attempt in drain(app)] == ["bob"]

def test_in_a_transaction(db):
    assert list(app.jobs()) == []
    sign_up("carol")
    assert [attempt.result for attempt in drain(app)] == ["carol"]
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_fixtures_serve_a_django_project(tmp_path: Path, database: Database, options: tuple[str, ...]) -> None:
    parts = {name: str(value) for name, value in conninfo_to_dict(database.dsn).items()}
    parts["test"] = f"dj_test_{tmp_path.parent.name}_project".replace("-", "_")
    settings = SETTINGS.format(**parts).replace("INSTALLED_APPS = [", 'INSTALLED_APPS = ["qworker.contrib.django", ')
    (tmp_path / "settings.py").write_text(settings + 'QWORKER = {"MODULES": ["jobs"]}\n')
    (tmp_path / "jobs.py").write_text(JOBS.replace("BACKEND", "True"))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nDJANGO_SETTINGS_MODULE = settings\n")
    (tmp_path / "test_it.py").write_text(PROJECT)
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    left = database.connect().execute(r"SELECT datname FROM pg_database WHERE datname LIKE 'dj\_test\_%'").fetchall()
    assert left == []
