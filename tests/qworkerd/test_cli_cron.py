"""`qworker cron pause`, `resume`, `run` and `next`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qworker import App, InvalidOperation
from qworker.actor import whoami
from tests.database import Database
from tests.qworkerd.conftest import Command

APP = """
from qworker import App

app = App()

@app.cron("30 9 * * *", timezone="Europe/Berlin")
@app.task(name="report", queue="reports", priority=2, unique=True)
def report() -> None: ...
"""


@pytest.fixture
def stored(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application whose schedule a live node has declared, and a connection to look."""
    (folder / "office.py").write_text(APP)
    monkeypatch.setenv("QWORKER_APP", "office:app")
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES ('report', 'report', '30 9 * * *', 'Europe/Berlin', 1)"
    )
    conn.execute(
        "INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds, state)"
        """ VALUES (1, 'here', '1', '{}', 1, 60, '{"cron": ["report"]}')"""
    )
    return conn


def test_a_schedule_is_paused_listed_and_resumed(command: Command, stored: Any) -> None:
    done = command("cron", "pause", "report", "--reason", "holidays")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("schedule 'report' is paused since ")
    assert done.stdout.endswith(f" by {whoami()}: holidays\n")
    row = command("cron").stdout.splitlines()[1]
    assert "never      none" in row
    assert row.endswith(": holidays")
    assert command("cron", "list").stdout.splitlines()[1] == row
    (found,) = json.loads(command("cron", "--json").stdout)
    assert found["next_tick"] is None
    assert found["paused"].items() >= {"by": whoami(), "reason": "holidays"}.items()
    again = command("cron", "pause", "report", "--reason", "another")
    assert again.stdout.startswith("schedule 'report' was already paused since ")
    assert again.stdout.endswith(": holidays\n")
    changed = json.loads(command("cron", "resume", "report", "--json").stdout)
    assert changed == {"report": {"changed": True, "paused": None}}
    assert command("cron", "resume", "report").stdout == "schedule 'report' was not paused\n"
    assert json.loads(command("cron", "--json").stdout)[0]["next_tick"] is not None
    audited = [(a["action"], a["note"]) for a in json.loads(command("audit", "--schedule", "report", "--json").stdout)]
    assert audited == [("schedule.resume", None), ("schedule.pause", "holidays")]


def test_a_run_enqueues_what_a_tick_would_and_says_which_job(command: Command, stored: Any) -> None:
    command("cron", "pause", "report")
    done = command("cron", "run", "report")
    (job, meta, queue, priority) = stored.execute("SELECT id, meta, queue, priority FROM qworker.job").fetchone()
    assert (done.exit_code, done.stdout) == (0, f"job {job}: task 'report' in queue 'reports'\n")
    assert (queue, priority) == ("reports", 2)
    assert meta["cron"] == "report"
    assert meta["run_by"] == whoami()
    assert abs((datetime.fromisoformat(meta["tick"]) - datetime.now(UTC)).total_seconds()) < 60
    assert stored.execute("SELECT last_tick FROM qworker.cron").fetchone() == (None,)
    held = command("cron", "run", "report")
    assert (held.exit_code, held.stdout) == (1, "")
    assert held.stderr == f"job {job} (available) holds the unique key of task 'report': nothing was enqueued\n"
    assert json.loads(command("cron", "run", "report", "--json").stdout)["duplicate"] is True
    (entry,) = json.loads(command("audit", "--job", job, "--json").stdout)
    assert (entry["action"], entry["target"], entry["jobs"]) == (
        "schedule.run", {"jobs": [job], "schedules": ["report"]}, 1,
    )  # fmt: skip


def test_the_coming_ticks_are_shown_in_their_zone(command: Command, stored: Any) -> None:
    head, first, *rest = command("cron", "next", "report", "-n", "3").stdout.splitlines()
    assert head.split() == ["SCHEDULE", "TICK", "IN", "TIMEZONE", "NOTE"]
    assert len(rest) == 2
    assert " 09:30:00+0" in first
    assert "Europe/Berlin" in first
    ticks = [datetime.fromisoformat(tick) for tick in json.loads(command("cron", "next", "--json").stdout)["report"]]
    assert len(ticks) == 5
    assert datetime.now(UTC) < ticks[0] < ticks[1]
    command("cron", "pause", "report")
    assert command("cron", "next", "-n", "1").stdout.splitlines()[1].endswith("paused")


@pytest.mark.parametrize("verb", ["pause", "resume", "run", "next"])
def test_an_unknown_schedule_is_refused_with_one_that_is_meant(command: Command, stored: Any, verb: str) -> None:
    done = command("cron", verb, "reprot")
    assert done.exit_code == 2
    assert "schedule 'reprot' not found; did you mean 'report'? `qworker cron list` lists all" in done.stderr


def test_an_application_runs_its_own_schedules_only(database: Database) -> None:
    app = App(database.dsn)
    with pytest.raises(InvalidOperation, match="schedule 'x' not found; `qworker cron list`"):
        app.run_schedule("x")
    app.cron("@daily", name="nightly")(app.task(name="tidy")(lambda: None))
    with pytest.raises(InvalidOperation, match="schedule 'nightl' not found; did you mean 'nightly'"):
        app.run_schedule("nightl")
    first, second = app.run_schedule("nightly"), app.run_schedule("nightly")
    assert first.id != second.id
    assert not first.duplicate
    app.close()
