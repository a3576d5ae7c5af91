"""`qworker ping`: whether the node of this host lives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from tests.database import Database
from tests.qworkerd.conftest import Command

HERE = socket.gethostname()


def register(database: Database, name: str, silent: float = 0.0) -> None:
    with psycopg.connect(database.dsn) as conn:
        conn.execute(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, heartbeat_at)"
            " VALUES (%s, '0.1', '{default}', 1, 30, clock_timestamp() - make_interval(secs => %s))",
            [name, silent],
        )


def test_a_node_of_this_host_that_lives(command: Command, database: Database) -> None:
    register(database, f"{HERE}:1", silent=600)
    register(database, f"{HERE}:2", silent=12)
    register(database, f"{HERE}x:3")
    done = command("ping")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"node {HERE}:2 is alive: its last heartbeat was 12s ago")
    found = json.loads(command("ping", "--json").stdout)
    assert [(node["node"], node["alive"]) for node in found] == [(f"{HERE}:2", True), (f"{HERE}:1", False)]


def test_a_node_whose_lease_has_expired(command: Command, database: Database) -> None:
    register(database, f"{HERE}:1", silent=31)
    done = command("ping")
    assert done.exit_code == 1
    assert done.stderr == f"node {HERE}:1 is not alive: its last heartbeat was 31s ago, and its lease is 30s\n"


def test_no_node_on_this_host(command: Command, database: Database) -> None:
    register(database, "elsewhere:1")
    done = command("ping")
    assert (done.exit_code, done.stderr) == (1, f"no node {HERE} is registered\n")


@pytest.mark.parametrize(("name", "code"), [("web1", 0), ("web1:7", 0), ("web1:8", 1), ("web", 1)])
def test_another_node_by_its_name(command: Command, database: Database, name: str, code: int) -> None:
    register(database, "web1:7")
    assert command("ping", "--node", name).exit_code == code


def test_a_database_that_is_not_there(command: Command) -> None:
    done = command("ping", env={"QWORKER_DSN": "postgresql://127.0.0.1:1/x"})
    assert done.exit_code == 75


def test_a_database_that_does_not_answer_costs_no_more_than_the_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        begun = monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "qworkerd", "ping", "--timeout", "500ms"],
            env={**os.environ, "QWORKER_DSN": dsn}, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 75
    assert done.stderr == "qworker: no answer from the database within 500ms\n"
    assert monotonic() - begun < 20, "the import included, on a busy machine"


def test_the_application_is_not_imported(command: Command, folder: Path, database: Database) -> None:
    (folder / "broken.py").write_text("raise SystemExit('imported')")
    register(database, f"{HERE}:1")
    assert command("ping", "--app", "broken:app").exit_code == 0


def test_an_integration_is_asked_for_its_database(command: Command, database: Database) -> None:
    register(database, f"{HERE}:1")
    done = command("ping", "--app", "qworker.contrib.flask.node:app")
    assert done.exit_code == 78, "there is no Flask application here, although a connection string is set"
