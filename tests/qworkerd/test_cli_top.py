"""`qworker top --once` and `--json`: frames for pipes."""

import json
from typing import Any

import pytest

from qworker import App
from qworkerd.log.width import width
from tests.database import Database
from tests.qworkerd.conftest import Command


@pytest.fixture
def app(database: Database) -> Any:
    app = App(database.dsn)
    app.task(name="send", queue="emails")(lambda: None).enqueue()
    yield app
    app.close()


@pytest.mark.parametrize("words", [("--once",), ()], ids=["--once", "no terminal"])
def test_one_frame_is_text_of_eighty_columns(command: Command, app: App, words: tuple[str, ...]) -> None:
    app.queue("emails").pause(reason="a reason that is too long for the rest of a line of eighty columns")
    done = command("top", *words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "qworker top qworker_shared@" in done.stdout
    assert "1 available" in done.stdout
    assert "a reason that" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(width, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("tab", ["queues", "running", "failures", "nodes", "schedules", "doctor"])
def test_each_tab_has_a_frame(command: Command, app: App, tab: str) -> None:
    done = command("top", "--once", "--tab", tab)
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= 3


def test_a_filter_is_that_of_the_failed_jobs(command: Command, app: App, database: Database) -> None:
    database.connect().execute("UPDATE qworker.job SET state = 'failed', failed_at = now()")
    assert "send" in command("top", "--once", "task:send").stdout
    assert "no failed jobs" in command("top", "--once", "task:other").stdout
    wrong = command("top", "--once", "tsk:other")
    assert wrong.exit_code == 2
    assert "^" in wrong.stderr


def test_rows_that_are_not_jobs_are_filtered_by_their_names(command: Command, app: App) -> None:
    app.task(name="report", queue="reports")(lambda: None).enqueue()
    done = command("top", "--once", "--tab", "queues", "queue:e*").stdout
    assert "emails" in done
    assert "reports" not in done
    assert command("top", "--once", "--tab", "queues", "-queue:emails").stdout.count("reports") == 1
    wrong = command("top", "--once", "--tab", "queues", "tag:vip")
    assert wrong.exit_code == 2
    assert "queue:, node:, state: only" in wrong.stderr
    assert "  ^" in wrong.stderr


def test_json_is_one_object(command: Command, app: App) -> None:
    done = command("top", "--once", "--json")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["queues"][0].items() >= {"name": "emails", "available": 1, "paused": None, "exact": True}.items()
    assert found["last_hour"]["succeeded"] == 0
    assert found["nodes"] == []


def test_hostile_names_are_harmless(command: Command, app: App, database: Database) -> None:
    name = "\x1b[2J[red]boo[/red]\u202e\nmail漢字"
    database.connect().execute("UPDATE qworker.job SET task = %s, state = 'failed', failed_at = now()", [name])
    shown = command("top", "--once", "state:failed").stdout
    assert "\\x1b[2J[red]b" in shown
    assert "\x1b" not in shown
    assert json.loads(command("top", "--once", "--json", "state:failed").stdout)["failed"][0]["task"] == name


def test_without_the_database_it_ends_as_other_commands_do(command: Command, app: App) -> None:
    done = command("top", "--once", env={"QWORKER_DSN": "postgresql://127.0.0.1:1/none"})
    assert done.exit_code == 75
    assert "no connection to the database" in done.stderr
