"""`qworker audit`, and what `jobs show` says of actions on a job."""

import json
from datetime import datetime
from typing import Any

import psycopg
import pytest

from qworker import App, acting_as
from qworker.actor import whoami
from tests.database import Database
from tests.qworkerd.conftest import Command


@pytest.fixture
def app(database: Database) -> Any:
    app = App(database.dsn)
    yield app
    app.close()


def test_actions_of_the_command_line_are_listed_newest_first(command: Command, app: App) -> None:
    job = app.task(name="send", queue="mail")(lambda: None).enqueue()
    command("queues", "pause", "mail", "--reason", "upstream down")
    command("jobs", "cancel", job.id)
    head, cancelled, paused = command("audit").stdout.splitlines()
    assert head.split() == ["WHEN", "ACTOR", "ROLE", "VIA", "ACTION", "TARGET", "NOTE"]
    assert f"{whoami()}  postgres  cli  job.cancel   job {job.id}" in cancelled
    assert paused.endswith("cli  queue.pause  queue mail  upstream down")
    assert command("audit", "--job", job.id).stdout.splitlines()[1].split() == cancelled.split()
    assert command("audit", "--queue", "mail").stdout.splitlines()[1].split() == paused.split()
    assert command("audit", "--actor", "nobody").stderr == "no matching actions\n"
    first = command("audit", "--limit", 1)
    assert first.stdout.splitlines()[1].split() == cancelled.split()
    assert first.stderr.startswith("there may be more: --below ")
    assert command("audit", "--below", first.stderr.split()[-1]).stdout.splitlines()[1].split() == paused.split()


def test_json_has_every_field(command: Command, app: App) -> None:
    with acting_as("alice", via="web", address="192.0.2.7"):
        app.admin.pause("mail")
    (entry,) = json.loads(command("audit", "--json").stdout)
    assert datetime.fromisoformat(entry.pop("at")).tzinfo is not None
    assert entry.pop("id") > 0
    assert entry == {
        "actor": "alice", "role": "postgres", "via": "web", "address": "192.0.2.7", "action": "queue.pause",
        "target": {"queues": ["mail"]}, "jobs": None, "note": None,
    }  # fmt: skip


def test_times_are_ages_or_dates(command: Command, app: App) -> None:
    app.admin.pause("mail")
    for words, count in (
        (["--since", "1h"], 1), (["--until", "1h"], 0), (["--since", "2020-01-31"], 1),
        (["--until", "2020-01-31T09:00"], 0), (["--since", "2020-01-31T09:00+05:00", "--action", "queue"], 1),
    ):  # fmt: skip
        assert len(json.loads(command("audit", "--json", *words).stdout)) == count
    refused = command("audit", "--since", "yesterday")
    assert refused.exit_code == 2
    assert "'yesterday' is not a time: pass 2h, 7d, or 2026-01-31T09:00" in refused.stderr


def test_a_job_shows_what_was_done_to_it(command: Command, app: App) -> None:
    job = app.task(name="send")(lambda: None).enqueue()
    with acting_as("alice\x1b[31m", note="ticket 12"):
        job.cancel()
    shown = command("jobs", "show", job.id).stdout
    assert "\ncancel       2" in shown
    assert "by alice\\x1b[31m, api: ticket 12\n" in shown
    (entry,) = json.loads(command("jobs", "show", job.id, "--json").stdout)["audit"]
    assert (entry["action"], entry["note"]) == ("job.cancel", "ticket 12")


def test_many_targets_are_shortened(command: Command, app: App) -> None:
    app.admin.pause(*(f"queue{n}" for n in range(9)))
    assert "queues queue0, queue1, queue2, queue3, queue4 and 4 more" in command("audit").stdout


def test_a_role_that_may_not_read_the_audit_is_shown_the_job(command: Command, app: App, database: Database) -> None:
    job = app.task(name="send")(lambda: None).enqueue()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("CREATE ROLE qworker_reader LOGIN PASSWORD 'pw'")
        try:
            conn.execute("GRANT USAGE ON SCHEMA qworker TO qworker_reader")
            conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA qworker TO qworker_reader")
            conn.execute("REVOKE SELECT ON qworker.audit FROM qworker_reader")
            dsn = psycopg.conninfo.make_conninfo(database.dsn, user="qworker_reader", password="pw")
            done = command("jobs", "show", job.id, env={"QWORKER_DSN": dsn})
            assert (done.exit_code, done.stderr) == (0, "")
            assert "send" in done.stdout
        finally:
            conn.execute("DROP OWNED BY qworker_reader")
            conn.execute("DROP ROLE qworker_reader")


def test_a_copy_is_named_in_the_singular(command: Command, app: App) -> None:
    jobs = [app.task(name="send", queue="mail")(lambda: None).enqueue() for _ in range(1)]
    app.admin.cancel(jobs[0].id)
    copy = json.loads(command("jobs", "again", jobs[0].id, "--json").stdout)[str(jobs[0].id)]["copy"]
    assert f"job {jobs[0].id}; copy {copy}" in command("audit", "--action", "job.again").stdout
