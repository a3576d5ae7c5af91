"""The lines of a job that are kept in memory, and how they are shown."""

import json
import secrets
import threading
from math import inf
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from qworker import App
from qworker.context import RunningJob
from qworker.db.connection import connect
from qworker.maintenance import Maintenance
from qworker.rights import Kind
from qworkerd.config.settings import Settings
from qworkerd.log.job_lines import MAX_SIZE, JobLines
from qworkerd.log.line_ring import MAX_LINE, MAX_LINES
from qworkerd.run import make_node
from qworkerd.scheduler.retention import Retention
from tests import roles
from tests.attempts import attempt
from tests.database import Database
from tests.qworkerd.conftest import Command


@pytest.fixture
def lines() -> JobLines:
    made = JobLines()
    made.enabled = True
    return made


def started(at: float) -> RunningJob:
    job = attempt(1)
    job.started = at
    return job


def test_lines_belong_to_the_attempt_that_runs(lines: JobLines) -> None:
    first, second = started(1.0), started(2.0)
    lines.add(first, {"event": "a", "job": 1, "pid": 7})
    lines.add(second, {"event": "b"})
    lines.add(first, {"event": "a thread that the first job has left behind"})
    assert lines.pop(first) == {}
    assert lines.pop(second) == {"logs": [{"event": "b"}]}
    assert lines.pop(second) == {}


def test_a_line_is_limited_and_can_be_stored(lines: JobLines, database: Database) -> None:
    job = started(1.0)
    lines.add(job, {"event": "x" * 100_000, "exception": "y" * 100_000, "n": 1})
    lines.add(job, {"event": "\0\ud800", "deep\0": {"a": ["\0"]}, "f": 0.5, "none": None})
    (long, other) = lines.pop(job)["logs"]
    assert len(json.dumps(long)) < 2 * MAX_LINE
    assert long["n"] == 1
    assert other == {"event": "\ufffd?", "deep\ufffd": {"a": ["\ufffd"]}, "f": 0.5, "none": None}
    database.connect().execute("SELECT %s::jsonb", (json.dumps([long, other]),))


def test_many_threads_do_not_exceed_the_limits(lines: JobLines) -> None:
    job = started(1.0)

    def add() -> None:
        for _ in range(2000):
            lines.add(job, {"event": "x" * 50})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = lines.pop(job)
    assert len(kept["logs"]) <= MAX_LINES + 4
    assert sum(len(line["event"]) for line in kept["logs"]) <= MAX_SIZE


def test_nothing_is_kept_if_it_is_not_wanted() -> None:
    lines, job = JobLines(), started(inf)
    lines.add(job, {"event": "a"})
    assert lines.pop(job) == {}


LINE = {"timestamp": "2026-01-31T09:00:00.125Z", "level": "info", "event": "paid \x1b[2J", "order": 17}


def store(database: Database, errors: Any) -> int:
    conn = database.connect()
    insert = "INSERT INTO qworker.job (task, state, failed_at, errors) VALUES ('t', 'failed', now(), %s) RETURNING id"
    ((job,),) = conn.execute(insert, (Jsonb(errors),)).fetchall()
    return int(job)


def test_the_lines_are_shown(command: Command, database: Database) -> None:
    trace = {"level": "error", "event": "caught", "exception": "Traceback\n  \x1b[31mKeyError", "timestamp": None}
    job = store(database, [{"attempt": 1, "logs": [LINE], "logs_dropped": 3}, {"attempt": 2, "logs": [LINE, trace]}])
    shown = command("jobs", "logs", job)
    assert shown.exit_code == 0
    assert "attempt 1 (3 earlier lines were not kept)" in shown.stdout
    assert "paid \\x1b[2J  order=17" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "    Traceback\n      \\x1b[31mKeyError\n" in shown.stdout
    only = command("jobs", "logs", job, "--attempt", 2).stdout
    assert ("attempt 2" in only, "attempt 1" in only) == (True, False)


def test_json_has_the_lines(command: Command, database: Database) -> None:
    job = store(database, [{"attempt": 1, "logs": [LINE]}])
    (log,) = json.loads(command("jobs", "logs", job, "--json").stdout)
    assert log["attempt"] == 1
    assert log["lines"][0]["event"] == LINE["event"]
    assert log["lines"][0]["fields"]["order"] == 17
    assert log["lines"][0]["at"] == "2026-01-31T09:00:00.125000+00:00"


@pytest.mark.parametrize("errors", [[], {"a": 1}, [7], [{"attempt": "x", "logs": [1]}], [{"attempt": 1, "logs": "x"}],
                                    [{"attempt": 1, "logs": [None, 3], "logs_dropped": "x"}]])  # fmt: skip
def test_a_job_without_lines_says_why(command: Command, database: Database, errors: Any) -> None:
    result = command("jobs", "logs", store(database, errors))
    assert result.exit_code == 1
    assert "no log lines are stored for job" in result.stderr


def test_old_lines_are_dropped_before_the_errors_are(database: Database) -> None:
    conn = database.connect()
    noise = [{"event": str(number) + secrets.token_hex(2000)} for number in range(8)]
    conn.execute("CREATE TEMP TABLE kept (errors jsonb)")
    conn.execute("INSERT INTO kept VALUES (NULL)")
    for number in range(60):
        error = Jsonb({"attempt": number, "logs": noise})
        conn.execute("UPDATE kept SET errors = qworker.append_error(errors, %s)", (error,))
    ((errors,),) = conn.execute("SELECT errors FROM kept").fetchall()
    assert [error["attempt"] for error in errors] == list(range(10, 60))
    with_logs = [error["attempt"] for error in errors if "logs" in error]
    assert with_logs
    assert with_logs == list(range(60 - len(with_logs), 60))
    assert len(with_logs) < 20


def keep(database: Database, job: int, *lines: object, attempt: int = 1) -> None:
    database.connect().execute(
        "INSERT INTO qworker.job_log (job, claimed_at, ended_at, attempt, dropped, ring_day, lines)"
        " VALUES (%s, now(), now(), %s, 7, 0, %s)",
        (job, attempt, Jsonb(list(lines))),
    )


def test_the_lines_of_attempts_that_did_not_fail_are_shown_behind_the_others(
    command: Command, database: Database
) -> None:
    job = store(database, [{"attempt": 1, "claimed_at": "2026-01-31T09:00:00+00:00", "logs": [LINE]}])
    keep(database, job, {**LINE, "event": "of a success"}, attempt=2)
    shown = command("jobs", "logs", job).stdout
    assert shown.index("attempt 1\n") < shown.index("attempt 2 (7 earlier lines were not kept)\n")
    assert [log["attempt"] for log in json.loads(command("jobs", "logs", job, "--json").stdout)] == [1, 2]
    assert "of a success" not in command("jobs", "logs", job, "--attempt", 1).stdout


def test_to_follow_a_job_that_has_failed_shows_its_lines_and_ends(command: Command, database: Database) -> None:
    job = store(database, [{"attempt": 1, "claimed_at": "2026-01-31T09:00:00+00:00", "logs": [LINE, LINE]}])
    done = command("jobs", "logs", job, "--follow")
    assert (done.exit_code, done.stdout.count("paid \\x1b[2J")) == (0, 2)
    assert f"job {job} is failed" in done.stderr
    objects = [json.loads(line) for line in command("jobs", "logs", job, "-f", "--json").stdout.splitlines()]
    assert [line["fields"]["order"] for line in objects] == [17, 17]
    assert command("jobs", "logs", job, "-f", "--attempt", 2).stdout == ""
    assert database.connect().execute("SELECT * FROM qworker.live_log").fetchall() == []


def test_a_job_that_does_not_exist_is_not_followed(command: Command, database: Database) -> None:
    done = command("jobs", "logs", 4711, "--follow")
    assert done.exit_code == 1
    assert "4711" in done.stderr
    assert database.connect().execute("SELECT * FROM qworker.live_log").fetchall() == []


def test_a_viewer_follows_a_job_without_asking_its_node(command: Command, database: Database) -> None:
    job, conn = store(database, []), database.connect()
    roles.create(conn)
    try:
        env = {"QWORKER_DSN": roles.login(database.dsn, Kind.VIEWER)}
        done = command("jobs", "logs", job, "--follow", env=env)
        assert (done.exit_code, done.stderr) == (0, f"job {job} is failed\n")
        assert command("jobs", "logs", job, env=env).exit_code == 1  # there are none
    finally:
        roles.drop(conn)


def test_old_lines_are_truncated_and_the_others_kept(database: Database) -> None:
    conn = database.connect()
    for age in (0, 2, 5):  # yesterday is the day before, should midnight pass meanwhile
        conn.execute(
            "INSERT INTO qworker.job_log (job, claimed_at, ended_at, attempt, dropped, ring_day, lines)"
            " SELECT %(age)s, t, t, 1, 0, qworker.history_day(t), '[]'"
            "   FROM (SELECT clock_timestamp() - make_interval(days => %(age)s)) AS x (t)",
            {"age": age},
        )
    node = make_node(App(), Settings(dsn=database.dsn, processes=1, log_days=1))
    with connect(database.dsn, "test") as own:
        Retention(node.settings, Maintenance(), node.tally.writer(0)).truncate(own)
    assert conn.execute("SELECT job FROM qworker.job_log ORDER BY job").fetchall() == [(0,)]
