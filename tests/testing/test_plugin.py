"""The pytest plugin, in the tests of somebody's project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.database import Database

SHOP = """
from qworker import App

app = App("host=/nonexistent")

@app.task
def greet(name: str) -> str:
    return f"Hello, {name}"
"""


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nqworker_app = shop:app\n")
    return tmp_path


def test_nothing_is_imported_until_a_fixture_is_asked_for(project: Path) -> None:
    (project / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert 'pytest_qworker' in sys.modules\n"
        "    assert not {'qworker', 'qworkerd', 'structlog', 'pytest_qworker.database'} & sys.modules.keys()\n"
    )
    done = run(project, QWORKER_TEST_DSN="host=/nonexistent")
    assert done.returncode == 0, done.stdout


def test_each_test_has_an_empty_database_also_under_xdist(project: Path, database: Database) -> None:
    (project / "test_it.py").write_text("""
import pytest
from qworker.testing import assert_enqueued, drain
from shop import app, greet

@pytest.mark.parametrize("n", range(6))
def test_it(qworker_db, n):
    assert app.dsn == qworker_db
    greet.enqueue("Eve")
    assert_enqueued(greet, {"name": "Eve"}, count=1)
    assert [a.result for a in drain(app)] == ["Hello, Eve"]
    assert len(list(app.jobs())) == 1

def test_no_database(qworker_app):
    assert qworker_app is app
    assert app.dsn == "host=/nonexistent"
""")
    done = run(project, "-n", "2", QWORKER_TEST_DSN=database.dsn)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
    ours = r"SELECT datname FROM pg_database WHERE datname LIKE 'qworker\_test\_%'"
    left = database.connect().execute(ours).fetchall()
    assert [name for (name,) in left if name != "qworker_test"] == []


def test_a_real_node_runs_jobs_of_all_queues_from_end_to_end(project: Path, database: Database) -> None:
    with (project / "shop.py").open("a") as file:
        file.write('@app.task(queue="mail")\ndef send(name: str) -> str:\n    return f"sent to {name}"\n')
    (project / "test_it.py").write_text("""
from shop import greet, send

def test_it(qworker_node):
    assert greet.enqueue("Eve").wait(timeout=20) == "Hello, Eve"
    assert send.enqueue("Eve").wait(timeout=20) == "sent to Eve"
    assert qworker_node.log.read_text()
""")
    done = run(project, QWORKER_TEST_DSN=database.dsn)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_node_serves_all_tests_unless_one_leaves_jobs_to_it(project: Path, database: Database) -> None:
    (project / "test_it.py").write_text("""
import os
import signal
import time
import pytest
from qworker.testing import drain
from shop import app, greet

seen = []

@pytest.mark.parametrize("n", range(4))
def test_it(qworker_node, n):
    assert list(app.jobs()) == []
    begun = time.monotonic()
    assert greet.enqueue("Eve").wait(timeout=20) == "Hello, Eve"
    greet.options(delay=600).enqueue("Bob")
    seen.append(qworker_node.pid)
    assert len(set(seen)) == 1

def test_jobs_are_left(qworker_node):
    greet.options(delay=1).enqueue("Eve")

def test_they_do_not_run_in_the_next_test(qworker_node):
    assert list(app.jobs()) == []
    seen.append(qworker_node.pid)
    assert len(set(seen)) == 2
    assert greet.enqueue("Eve").wait(timeout=20) == "Hello, Eve"
    os.kill(qworker_node.pid, signal.SIGKILL)
    while qworker_node.pid:
        time.sleep(0.01)

def test_a_node_that_was_killed_is_replaced(qworker_node):
    assert greet.enqueue("Eve").wait(timeout=20) == "Hello, Eve"

def test_without_a_node(qworker_db):
    greet.enqueue("Eve")
    time.sleep(0.3)
    assert [a.attempt for a in drain(app)] == [1]
""")
    done = run(project, QWORKER_TEST_DSN=database.dsn)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_an_embedded_server_is_started_where_none_is_named(project: Path) -> None:
    (project / "test_it.py").write_text("""
from qworker.testing import drain
from shop import app, greet

def test_it(qworker_db):
    greet.enqueue("Eve")
    assert len(drain(app)) == 1
""")
    done = run(project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_an_application_the_error_says_what_to_set(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (project / "test_it.py").write_text("def test_it(qworker_app): ...\n")
    done = run(project)
    assert done.returncode == 1
    assert "Set qworker_app = package.module:attribute in pytest.ini" in done.stdout
