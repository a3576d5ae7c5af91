"""`qworker queues pause` and `resume`, and where a pause is shown."""

import json
from typing import Any

import pytest

from qworker import App
from tests.database import Database
from tests.qworkerd.conftest import Command


@pytest.fixture
def app(database: Database) -> Any:
    app = App(database.dsn)
    app.task(name="send", queue="emails")(lambda: None).enqueue()
    yield app
    app.close()


def test_a_queue_is_paused_listed_and_resumed(command: Command, app: App) -> None:
    done = command("queues", "pause", "emails", "--reason", "upstream down")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("queue 'emails' is paused since ")
    assert done.stdout.endswith(": upstream down\n")
    head, row = command("queues").stdout.splitlines()
    assert head.split()[-1] == "PAUSED"
    assert row.endswith(": upstream down")
    assert "since 2" in row
    again = command("queues", "pause", "emails", "--reason", "another")
    assert again.exit_code == 0
    assert again.stdout.startswith("queue 'emails' was already paused since ")
    assert again.stdout.endswith(": upstream down\n")
    assert command("queues", "resume", "emails").stdout == "queue 'emails' is resumed\n"
    late = command("queues", "resume", "emails")
    assert (late.exit_code, late.stdout) == (0, "queue 'emails' was not paused\n")
    assert "PAUSED" not in command("queues").stdout


def test_json_has_the_pause_and_whether_it_changed(command: Command, app: App) -> None:
    found = json.loads(command("queues", "pause", "emails", "--reason", "r", "--json").stdout)
    assert found["emails"]["changed"] is True
    assert found["emails"]["paused"].items() >= {"queue": "emails", "reason": "r"}.items()
    listed = json.loads(command("queues", "--json").stdout)["emails"]
    assert listed["paused"] == found["emails"]["paused"]
    assert json.loads(command("queues", "resume", "emails", "--json").stdout) == {
        "emails": {"changed": True, "paused": None}
    }
    assert json.loads(command("queues", "--json").stdout)["emails"]["paused"] is None


def test_all_pauses_what_holds_jobs_and_resumes_what_is_paused(command: Command, app: App) -> None:
    app.task(name="report", queue="reports")(lambda: None).enqueue()
    app.queue("empty").pause()
    assert command("queues", "pause", "--all").stdout.count(" is paused since ") == 2
    assert sorted(pause.queue for pause in app.admin.paused()) == ["emails", "empty", "reports"]
    assert command("queues", "resume", "--all").stdout.count(" is resumed") == 3
    assert app.admin.paused() == []
    assert command("queues", "resume", "--all").stderr == "no queue is paused\n"


def test_a_queue_without_jobs_can_be_paused_and_a_misspelt_name_is_noticed(command: Command, app: App) -> None:
    done = command("queues", "pause", "email", "reports")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "warning: queue 'email' has no jobs, and no live node serves it; did you mean 'emails'?",
        "warning: queue 'reports' has no jobs, and no live node serves it",
    ]
    wrong = command("queues", "resume", "emial", "emails", "reports")
    assert wrong.exit_code == 1
    assert wrong.stdout == "queue 'emails' was not paused\nqueue 'reports' is resumed\n"
    assert wrong.stderr == (
        "queue 'emial' is not paused, has no jobs, and no live node serves it; did you mean 'email'?\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [(("pause",), "pass the names of queues, or --all"), (("resume",), "pass the names of queues, or --all"),
     (("pause", "a", "--all"), "pass the names of queues, or --all"), (("pause", "a,b"), "'a,b'"),
     (("pause", "a", "--reason", "x" * 1001), "reason must have 1 to 1000 printable characters"),
     (("--json", "pause", "a"), "qworker queues pause --json")],
)  # fmt: skip
def test_wrong_use_is_explained(command: Command, words: tuple[str, ...], message: str) -> None:
    done = command("queues", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_check_warns_of_paused_queues_with_jobs_that_are_due(command: Command, app: App, shop: Any) -> None:
    task = app.task(name="later", queue="reports")(lambda: None)
    app.admin.pause("emails", "reports", "empty", reason="upstream down", by="alice")
    task.options(delay=3600).enqueue()

    def warned() -> list[str]:
        warnings = json.loads(command("check", "--app", "shop:app", "--queues", "default,emails", "--json").stdout)
        return [warning for warning in warnings["warnings"] if "is paused" in warning]

    (warning,) = warned()
    assert warning.startswith("jobs that are due wait in queue 'emails', which is paused since ")
    assert warning.endswith("by alice: upstream down; resume it with `qworker queues resume emails`")
    with app.pool.connection() as conn:
        conn.execute("UPDATE qworker.job SET run_at = clock_timestamp() WHERE queue = 'reports'")
    assert len(warned()) == 2


def test_a_job_of_a_paused_queue_is_shown_as_such(command: Command, app: App) -> None:
    (job,) = app.admin.find()
    assert "paused" not in command("jobs", "list").stdout + command("jobs", "show", job.id).stdout
    app.queue("emails").pause(reason="upstream down", by="alice")
    other = app.task(name="other")(lambda: None).enqueue()
    assert command("jobs", "list", "queue:emails").stdout.splitlines()[1].endswith("its queue is paused")
    assert "paused" not in command("jobs", "list", f"queue:{other.queue}").stdout
    assert "paused       the queue, since 2" in command("jobs", "show", job.id).stdout
    assert json.loads(command("jobs", "show", job.id, "--json").stdout)["paused"]["reason"] == "upstream down"
    assert json.loads(command("jobs", "show", other.id, "--json").stdout)["paused"] is None


def test_a_queue_shows_its_jobs_its_pause_and_what_was_done_to_it(command: Command, app: App) -> None:
    command("queues", "pause", "emails", "--reason", "upstream down")
    done = command("queues", "show", "emails")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["available"].split() == ["available", "1"]
    assert lines["served"].endswith("no live node")
    assert lines["paused"].endswith(": upstream down")
    assert lines["pause"].endswith(", cli: upstream down")
    found = json.loads(command("queues", "show", "emails", "--json").stdout)
    assert (found["available"], found["paused"]["reason"]) == (1, "upstream down")
    assert [entry["action"] for entry in found["audit"]] == ["queue.pause"]
    assert command("queues", "list").stdout.splitlines()[0] == command("queues").stdout.splitlines()[0]
    assert json.loads(command("queues", "list", "--json").stdout)["emails"]["paused"]["reason"] == "upstream down"


def test_an_unknown_queue_has_nothing_to_show(command: Command, app: App) -> None:
    done = command("queues", "show", "email")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "queue 'email' is not paused, has no jobs, and no live node serves it" in done.stderr
    assert "'emails'" in done.stderr
