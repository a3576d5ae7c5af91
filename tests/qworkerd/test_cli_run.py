"""`qworker` without a subcommand: what it refuses, and what it waits for."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from qworkerd.cli.main import main
from qworkerd.cli.run import check_schema
from qworkerd.config.settings import NOT_ON_COMMAND_LINE, field_specs, option
from qworkerd.config.target import resolve
from tests.database import Database
from tests.waiting import until

QWORKER = [sys.executable, "-m", "qworkerd"]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*QWORKER, *words], env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False
    )


def refused(*words: str, **environ: str) -> dict[str, Any]:
    done = run(*words, **environ)
    assert done.returncode == 78, done.stderr
    (line,) = done.stderr.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["event"] == "configuration.invalid"
    return found


def test_no_application_is_refused(folder: Path) -> None:
    assert "$QWORKER_APP" in refused()["error"]


def test_an_application_that_cannot_be_imported_is_refused(folder: Path) -> None:
    assert "no module named 'absent'" in refused("--app", "absent:app")["error"]


def test_a_database_without_the_schema_is_refused_and_the_command_named(shop: Path, empty_database: Database) -> None:
    found = refused("--app", "shop:app", QWORKER_DSN=empty_database.dsn)
    assert "run `qworker db migrate`" in found["error"]


def test_a_bad_value_is_refused(shop: Path) -> None:
    assert refused("--app", "shop:app", QWORKER_LEASE_TIMEOUT="1")["error"].startswith(
        "lease_timeout = '1' from $QWORKER_LEASE_TIMEOUT"
    )


@pytest.mark.parametrize(
    "words", [("--lease-timeout", "1"), ("--app", "shop"), ("--queues", ","), ("--schema", "Shop")]
)
@pytest.mark.parametrize("subcommand", [(), ("check",), ("jobs", "list")])
def test_a_wrong_value_of_an_option_is_a_usage_error(
    shop: Path, words: tuple[str, str], subcommand: tuple[str, ...]
) -> None:
    done = run(*words, *subcommand)
    assert done.returncode == 2
    of_nodes = subcommand == ("jobs", "list") and words[0] not in ("--app", "--schema")
    expected = f"{words[0]} is a setting of nodes" if of_nodes else f"from {words[0]}: must be "
    assert expected in done.stderr + done.stdout


def test_a_misspelt_variable_is_reported_with_the_one_that_was_meant(shop: Path) -> None:
    done = run("jobs", "list", QWORKER_DNS="postgresql://u:hunter2@h/db", PGHOST="/nowhere")
    assert "qworker: $QWORKER_DNS is set, but is not a setting; did you mean $QWORKER_DSN?" in done.stderr
    done = run("--app", "shop:app", QWORKER_DNS="x", QWORKER_DSN="nonsense=")
    (event,) = (e for e in map(json.loads, done.stderr.splitlines()) if e["event"] == "configuration.misspelt")
    assert (event["variable"], event["meant"]) == ("QWORKER_DNS", "QWORKER_DSN")


def test_on_a_terminal_the_refusal_is_a_plain_line(folder: Path) -> None:
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(QWORKER, stderr=terminal, stdout=subprocess.PIPE, timeout=60, check=False)
        text = os.read(master, 4096).decode()
    finally:
        os.close(terminal)
        os.close(master)
    assert done.returncode == 78
    assert text.startswith("qworker: no application is named")


@pytest.fixture
def node(folder: Path, shop: Path) -> Iterator[Any]:
    """Start a node whose log can be read from a file; the end of the test ends it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **environ: str) -> tuple[subprocess.Popen[bytes], Path]:
        path = folder / f"node{len(started)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*QWORKER, *words], env=os.environ | environ, stderr=log, stdout=log, start_new_session=True
            )
        started.append(process)
        return process, path

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def logged(path: Path, event: str) -> list[dict[str, Any]]:
    lines = path.read_bytes().splitlines(keepends=True)
    return [e for e in (json.loads(line) for line in lines if line.endswith(b"\n")) if e["event"] == event]


def test_a_database_that_is_away_is_waited_for(node: Any) -> None:
    short = ("--shutdown-timeout", "1", "--interrupt-timeout", "1")
    away = "postgresql://u:hunter2@127.0.0.1:1/x"
    process, path = node("--app", "shop:app", "--processes", "1", *short, QWORKER_DSN=away)
    until(lambda: logged(path, "supervisor.started"))
    assert logged(path, "database.unavailable")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert "hunter2" not in path.read_text()


def test_the_application_may_be_named_by_the_environment_or_the_project_file(
    node: Any, folder: Path, database: Database
) -> None:
    (folder / "pyproject.toml").write_text(f'[tool.qworker]\napp = "shop:app"\ndsn = "{database.dsn}"\n')
    process, path = node("--processes", "1", "--burst")
    assert process.wait(30) == 0, path.read_text()
    process, path = node("--processes", "1", "--burst", QWORKER_APP="shop:app", QWORKER_DSN=database.dsn)
    assert process.wait(30) == 0, path.read_text()


def test_looking_at_the_schema_leaves_no_connection(
    shop: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWORKER_DSN", database.dsn)
    check_schema(resolve({"app": "shop:app"}))
    conn = database.connect()
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qworker start'"
    until(lambda: conn.execute(query).fetchone() == (0,))


def test_every_setting_is_an_option_and_its_help_says_the_default() -> None:
    text = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    for name, kind in field_specs().items():
        if name in NOT_ON_COMMAND_LINE:
            assert option(name) not in text
        else:
            assert option(name) in text
            assert " ".join(kind.help.split()) in text
    assert "[default: 300]" in text


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_subcommand_has_help_that_needs_neither_application_nor_database(name: str, folder: Path) -> None:
    result = CliRunner().invoke(main, [name, "--help"], env={"QWORKER_APP": "absent:app"})
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_an_unknown_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["--dsn", "postgresql://u:p@h/db"]).exit_code == 2
