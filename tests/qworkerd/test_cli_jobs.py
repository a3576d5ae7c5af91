"""`qworker jobs`, and the commands beside it that look at what is there."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.qworkerd.conftest import Command

ERRORS = [
    {"at": "2026-01-01T10:00:00+00:00", "attempt": 1, "type": "ValueError", "message": "first",
     "traceback": "Traceback (most recent call last):\n  one\nValueError: first", "cause": None},
    {"at": "2026-01-01T10:00:10+00:00", "attempt": 2, "type": "WorkerDied", "message": "second",
     "cause": "signal:SEGV", "phase": "running", "ran": 1.5, "maxrss_mib": 33, "cpu": 0.25},
]  # fmt: skip


@pytest.fixture
def make(database: Database) -> Any:
    """Put a job into the table as it is; returns its id."""
    conn = database.connect()

    def insert(state: str = "available", **columns: Any) -> int:
        values: dict[str, Any] = {"state": state, "task": "shop.send", "queue": "emails", "args": Jsonb({"user_id": 7})}
        if state == "failed":
            values |= {"errors": Jsonb(ERRORS), "attempt": 2, "failed_at": "2026-01-01T10:00:10+00:00"}
        if state == "scheduled":
            values |= {"run_at": "2099-01-01T00:00:00+00:00"}
        if state == "running":
            values |= {"token": 1, "node": 1, "claimed_at": "2026-01-01T10:00:00+00:00", "attempt": 1}
        values |= columns
        names = ", ".join(values)
        positions = ", ".join(["%s"] * len(values))
        row = conn.execute(
            f"INSERT INTO qworker.job ({names}) VALUES ({positions}) RETURNING id",  # noqa: S608
            list(values.values()),
        ).fetchone()
        assert row is not None
        return int(row[0])

    return insert


def state(database: Database, job_id: int) -> str:
    row = database.connect().execute("SELECT state FROM qworker.jobs WHERE id = %s", [job_id]).fetchone()
    assert row is not None
    return str(row[0])


def test_list_shows_the_newest_first_and_what_is_worth_knowing(command: Command, make: Any) -> None:
    failed, waiting = make("failed"), make("scheduled", task="report", queue="default")
    done = command("jobs", "list")
    assert done.exit_code == 0
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["ID", "STATE", "QUEUE", "TASK", "ATTEMPT", "ENQUEUED", "NOTE"]
    assert first.split()[:4] == [str(waiting), "scheduled", "default", "report"]
    assert "due 2099-01-01 " in first
    assert second.split()[:5] == [str(failed), "failed", "emails", "shop.send", "2"]
    assert second.endswith("signal:SEGV: second")


@pytest.mark.parametrize("words", [
    ["state:failed"], ["queue:a", "task:t"], ["task:t"], ["tag:x"], ["-task:shop.*"], ["message:second", "-by:hook"],
    ["queue:a state:failed,running"], ["--", "-queue:emails"], ["message:sec ond"],
])  # fmt: skip
def test_list_can_be_narrowed_by_a_filter(command: Command, make: Any, words: list[str]) -> None:
    make()
    errors = [*ERRORS, {"type": "x", "message": "the sec ond second"}]
    wanted = make("failed", queue="a", task="t", tags=["x"], errors=Jsonb(errors))
    found = json.loads(command("jobs", "list", "--json", *words).stdout)
    assert [job["id"] for job in found] == [wanted]


def test_list_is_cut_and_says_how_to_go_on(command: Command, make: Any) -> None:
    ids = [make() for _ in range(3)]
    first = command("jobs", "list", "--limit", 2)
    assert f"--below {ids[1]}" in first.stderr
    rest = json.loads(command("jobs", "list", "--json", "--below", ids[1]).stdout)
    assert [job["id"] for job in rest] == [ids[0]]


def test_show_tells_arguments_and_every_attempts_error(command: Command, make: Any) -> None:
    job_id = make("failed")
    text = command("jobs", "show", job_id).stdout
    assert f"id           {job_id}\n" in text
    assert 'args         {"user_id": 7}\n' in text
    assert "ValueError: first\n    Traceback (most recent call last):\n      one\n    ValueError: first\n" in text
    assert (
        "WorkerDied (signal:SEGV): second\n"
        "    while running, after 1.5 s; the worker's peak memory 33 MiB, its processor time 0.25 s\n"
    ) in text


def test_show_for_programs_has_everything(command: Command, make: Any) -> None:
    job_id = make("failed", tags=["x"])
    found = json.loads(command("jobs", "show", job_id, "--json").stdout)
    assert found["id"] == job_id
    assert found["args"] == {"user_id": 7}
    assert found["errors"] == ERRORS
    assert found["tags"] == ["x"]
    assert found["finished_at"] == "2026-01-01T10:00:10+00:00"


def test_passwords_in_errors_are_not_shown(command: Command, make: Any) -> None:
    error = ERRORS[0] | {"message": "no postgresql://u:hunter2@h/db", "traceback": "password=hunter2"}
    job_id = make("failed", errors=Jsonb([error]))
    for words in (["list"], ["list", "--json"], ["show", job_id], ["show", job_id, "--json"]):
        assert "hunter2" not in command("jobs", *words).output


def test_a_failed_job_can_be_retried_and_others_are_distinguished(
    command: Command, make: Any, database: Database
) -> None:
    failed, waiting = make("failed"), make()
    done = command("jobs", "retry", failed, waiting, 999_999)
    assert done.exit_code == 1
    assert done.stdout == f"job {failed} is available again\n"
    assert f"job {waiting} is available: only failed jobs can be retried\n" in done.stderr
    assert "job 999999 not found" in done.stderr
    assert state(database, failed) == "available"


@pytest.mark.parametrize("words", [[], ["--args", "{}"], [1, 2, "--args", "{}"], ["x"], [0], [2**63], ["stat:failed"]])
def test_retry_wants_ids_or_a_filter(command: Command, words: list[object]) -> None:
    assert command("jobs", "retry", *words).exit_code == 2


def test_cancel_ends_waiting_jobs_and_asks_running_ones(command: Command, make: Any, database: Database) -> None:
    waiting, running, failed = make(), make("running"), make("failed")
    done = command("jobs", "cancel", waiting, running, failed)
    assert done.exit_code == 1
    assert done.stdout == f"job {waiting} is cancelled\njob {running} is running, cancellation requested\n"
    assert f"job {failed} is failed: only unfinished jobs can be cancelled" in done.stderr
    assert state(database, waiting) == "cancelled"


def test_discard_puts_failed_jobs_away(command: Command, make: Any, database: Database) -> None:
    failed = make("failed")
    assert command("jobs", "discard", failed).stdout == f"job {failed} is discarded\n"
    assert state(database, failed) == "discarded"
    again = command("jobs", "discard", failed)
    assert again.exit_code == 1
    assert f"job {failed} is discarded: only failed jobs can be discarded" in again.stderr


def test_what_is_no_text_or_no_job_is_refused_in_one_line(command: Command, database: Database) -> None:
    assert command("jobs", "list", "--queue", "\udcff").exit_code == 2
    missing = command("jobs", "show", 999_999)
    assert missing.exit_code == 1
    assert missing.stderr.startswith("qworker: job 999999 not found")


def node_of(database: Database, name: str, queues: list[str], silent: float = 0.0, **state: Any) -> None:
    """Enter a node whose last heartbeat is `silent` seconds old."""
    database.connect().execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state, heartbeat_at, started_at)"
        " VALUES (%s, '1', %s, 8, 30, %s, clock_timestamp() - make_interval(secs => %s),"
        " clock_timestamp() - interval '3 days 2 hours')",
        [name, queues, Jsonb(state), silent],
    )


def test_queues_show_their_jobs_the_oldest_ones_age_and_who_serves_them(
    command: Command, make: Any, database: Database
) -> None:
    for found in ("available", "available", "failed", "scheduled"):
        make(found)
    database.connect().execute(
        "UPDATE qworker.job SET enqueued_at = clock_timestamp() - interval '90 min'"
        " WHERE id = (SELECT min(id) FROM qworker.job) OR state = 'failed'"
    )
    make(queue="slow")
    node_of(database, "host:1", ["default", "emails"])
    node_of(database, "host:2", ["emails"])
    node_of(database, "host:3", ["slow"], silent=31)
    shown = json.loads(command("queues", "--json").stdout)
    counts = {"available": 2, "running": 0, "scheduled": 1, "blocked": 0, "failed": 1}
    assert shown["emails"].items() >= counts.items()
    assert shown["emails"]["nodes"] == ["host:1", "host:2"]
    assert 5400 <= shown["emails"]["oldest_age"] < 5460
    assert (shown["default"]["oldest_age"], shown["default"]["nodes"]) == (None, ["host:1"])
    assert shown["slow"]["nodes"] == []
    head, default, emails, slow = command("queues").stdout.splitlines()
    assert head.split() == ["QUEUE", "AVAILABLE", "RUNNING", "SCHEDULED", "FAILED", "OLDEST", "SERVED", "BY"]
    assert default.split() == ["default", "0", "0", "0", "0", "-", "host:1"]
    assert emails.split() == ["emails", "2", "0", "1", "1", "1h30m", "host:1,host:2"]
    assert slow.endswith("no live node")


def test_a_running_job_is_shown_with_its_worker_its_start_and_its_deadline(
    command: Command, make: Any, database: Database
) -> None:
    job, claimed = make("running", progress=Jsonb({"fraction": 0.4, "text": "copying"})), make("running")
    workers = [
        {"worker": 3, "pid": 4711, "phase": "running", "job": job, "task": "shop.send", "ran": 60.0, "left": 240.0},
        {"worker": 4, "pid": 4712, "phase": "idle", "job": "?", "ran": "?"},
    ]
    node_of(database, "host:1", ["emails"], workers=workers)
    newest, oldest = command("jobs", "list").stdout.splitlines()[1:]
    assert "claimed 2026-01-01" in newest
    assert re.search(r"40% copying, on host:1, worker 3 \(pid 4711\), since \S.+, until \S.+$", oldest)
    assert "runs         on host:1, worker 3 (pid 4711), since " in command("jobs", "show", job).stdout
    run = json.loads(command("jobs", "show", job, "--json").stdout)["run"]
    assert (run["node"], run["worker"], run["pid"]) == ("host:1", 3, 4711)
    since, until = (datetime.fromisoformat(run[name]) for name in ("since", "until"))
    assert (until - since).total_seconds() == 300
    assert json.loads(command("jobs", "show", claimed, "--json").stdout)["run"] is None
    line = next(line for line in command("workers").stdout.splitlines() if "shop.send" in line)
    assert re.search(rf"{job} shop.send, since \S.+, until \S.+$", line)


def test_workers_shows_nodes_and_whatever_they_tell_of_their_workers(command: Command, database: Database) -> None:
    conn = database.connect()
    insert = (
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state)"
        " VALUES (%s, '1', '{a,b}', 8, 30, %s)"
    )
    conn.execute(
        insert, ["host:1", Jsonb({"workers": [{"worker": 1, "phase": "idle"}, {"worker": 2, "news": 5}, "?"]})]
    )
    conn.execute(insert, ["host:2", Jsonb({"workers": "another version"})])
    conn.execute("UPDATE qworker.node SET heartbeat_at = heartbeat_at - interval '31 s' WHERE name = 'host:2'")
    done = command("workers")
    assert done.exit_code == 0
    assert "host:1" in done.stdout
    assert "overdue" in next(line for line in done.stdout.splitlines() if "host:2" in line)
    head, first, second = done.stdout.splitlines()[-3:]
    assert head.split() == ["NODE", "WORKER", "PHASE", "NEWS"]
    assert first.split()[1:] == ["1", "idle", "-"]
    assert second.split()[1:] == ["2", "-", "5"]
    assert json.loads(command("workers", "--json").stdout)[0]["queues"] == ["a", "b"]


def test_cron_shows_last_and_next_ticks(command: Command, shop: Path, database: Database) -> None:
    shop.write_text(
        shop.read_text().replace("@app.task(name=", "@app.cron('0 9 * * *', timezone='Europe/Berlin')\n@app.task(name=")
    )
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by)"
        " VALUES ('old', 'gone', '* * * * *', 'UTC', '2026-01-01', 1),"
        " ('newer', 'x', 'not known here', 'UTC', '2026-01-01', 1)"
    )
    found = {entry["name"]: entry for entry in json.loads(command("cron", "--app", "shop:app", "--json").stdout)}
    assert (found["report"]["next_tick"], found["report"]["note"]) == (None, "no node has declared it yet")
    assert found["old"]["note"] == "no live node declares it: it does not tick; not in this application"
    assert found["old"]["last_tick"] == "2026-01-01T00:00:00+00:00"
    assert found["newer"]["next_tick"] is None
    assert command("cron").exit_code == 0


@pytest.fixture
def scheduled(database: Database) -> Any:
    """A schedule that has never ticked, declared by a node whose last sign of life is some seconds old."""

    def scheduled(silent: float, expression: str = "0 9 * * *") -> None:
        conn = database.connect()
        conn.execute(
            "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
            " VALUES ('report', 'report', %s, 'Asia/Tokyo', 1)", [expression]
        )  # fmt: skip
        conn.execute(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state, heartbeat_at)"
            " VALUES ('host:1', '1', '{a}', 8, 30, %s, clock_timestamp() - make_interval(secs => %s))",
            [Jsonb({"cron": ["report"]}), silent],
        )

    return scheduled


def test_a_schedule_that_has_never_ticked_says_so_and_its_times_are_in_its_zone(
    command: Command, scheduled: Any
) -> None:
    scheduled(silent=1)
    shown = command("cron").stdout
    assert " never " in shown
    assert " 09:00:00+09  Asia/Tokyo" in shown
    (found,) = json.loads(command("cron", "--json").stdout)
    assert (found["last_tick"], found["nodes"], found["note"]) == (None, ["host:1"], "")
    assert found["next_tick"].endswith("T09:00:00+09:00")


@pytest.mark.parametrize(
    ("last", "upcoming"), [("2131-06-01 12:00+00", "2131-06-02T09:00:00+09:00"), ("9999-12-31 23:59+00", None)]
)
def test_what_was_ticked_in_the_future_is_not_ticked_again(
    command: Command, scheduled: Any, database: Database, last: str, upcoming: str | None
) -> None:
    scheduled(silent=1)
    database.connect().execute("UPDATE qworker.cron SET last_tick = %s", [last])
    (found,) = json.loads(command("cron", "--json").stdout)
    assert found["next_tick"] == upcoming


def test_a_schedule_of_nodes_that_are_silent_has_no_next_tick(command: Command, scheduled: Any) -> None:
    scheduled(silent=31)
    shown = command("cron").stdout
    assert "no live node declares it" in shown
    assert " none " in shown


def test_what_living_nodes_follow_is_shown_and_not_what_the_application_says(
    command: Command, shop: Path, scheduled: Any
) -> None:
    shop.write_text(shop.read_text().replace("@app.task(name=", "@app.cron('0 10 * * *')\n@app.task(name="))
    scheduled(silent=1)
    (found,) = json.loads(command("cron", "--app", "shop:app", "--json").stdout)
    assert (found["expression"], found["timezone"]) == ("0 9 * * *", "Asia/Tokyo")
    assert found["next_tick"].endswith("T09:00:00+09:00")
    assert found["note"] == "this application declares '0 10 * * *' in UTC"


def test_enqueue_checks_the_arguments_against_the_task(command: Command, shop: Path, database: Database) -> None:
    app = ("--app", "shop:app")
    done = command("enqueue", *app, "shop.send", '{"user_id": 7}', "--priority", 0, "--tag", "x", "--tag", "y")
    assert done.exit_code == 0
    job = json.loads(command("jobs", "list", "--json").stdout)[0]
    assert done.stdout == f"job {job['id']} is available in queue 'emails'\n"
    assert (job["args"], job["priority"], job["tags"]) == ({"user_id": 7}, 0, ["x", "y"])
    for arguments in ('{"uid": 7}', "[]", '{"user_id": NaN}', "7", "{", "[" * 100_000, '{"user_id": 1e999}'):
        refused = command("enqueue", *app, "shop.send", arguments)
        assert refused.exit_code == 2, arguments[:20]
    unknown = command("enqueue", *app, "shop.sned")
    assert unknown.exit_code == 1
    assert "shop.send" in unknown.stderr


def test_enqueue_reads_arguments_from_standard_input_and_tells_duplicates(command: Command, shop: Path) -> None:
    words = ("enqueue", "--app", "shop:app", "shop.send", "-", "--unique", "u7", "--delay", "60", "--json")
    first = json.loads(command(*words, stdin='[7, "ä"]').stdout)
    assert first["state"] == "scheduled"
    assert first["args"] == {"user_id": 7, "text": "ä"}
    again = json.loads(command(*words, stdin='[7, "ä"]').stdout)
    assert (again["id"], again["duplicate"]) == (first["id"], True)


def test_enqueue_needs_an_application(command: Command) -> None:
    refused = command("enqueue", "shop.send")
    assert refused.exit_code == 78
    assert "--app" in refused.stderr


def test_a_failure_hook_is_shown_as_one(command: Command, shop: Path, database: Database) -> None:
    sql = "INSERT INTO qworker.job (task, args, is_hook) VALUES (%s, %s, %s) RETURNING id"
    conn = database.connect()
    ids = [conn.execute(sql, ("shop.send", '{"job": 1}', is_hook)).fetchone() for is_hook in (True, False)]
    (hook,), (plain,) = (row or (0,) for row in ids)
    listed = command("jobs", "list").output.splitlines()
    assert ["(on_failure)" in line for line in listed if "shop.send" in line] == [False, True]
    assert [json.loads(command("jobs", "show", number, "--json").output)["hook"] for number in (hook, plain)] == [
        True,
        False,
    ]
    assert "hook" in command("jobs", "show", hook).output
    assert "hook" not in command("jobs", "show", plain).output
