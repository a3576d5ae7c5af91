"""Rows that anybody may have written, each field with the worst it can hold, before every command, on a terminal."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from qworker import App, JobCancelled, JobFailed
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_visible import OBEYED

BAD = "\x1b]0;owned\x07\x1b[2J\x9b8m\u202egnp.exe\u2066\r\x7f\u200b password=hunter2 {{7*7}} <svg onload=x>"
DEEP = "[" * 6_000 + "]" * 6_000
DIGITS = f'{{"n": 1e5000, "password": "hunter2", "note": "password: hunter2", "t": {json.dumps(BAD)}}}'
NESTED = '{"a": ' * 249 + "1" + "}" * 249

WRONG = {"at": 7, "attempt": [], "type": {}, "message": None, "cause": [1], "phase": {}, "ran": "x", "traceback": 7}

#: Values of each column, as SQL takes them.
FIELDS: dict[str, list[str]] = {
    "task": [BAD],
    "queue": [BAD],
    "args": [
        DIGITS, f'{{"deep": {DEEP}}}', NESTED, "[1]", "7", "null", '"x"', f'{{"x": {"9" * 5_000}.5}}',
    ],
    "errors": [
        '"x"', '[7, null, [], "x"]', "{}", f"[{DIGITS}]", f'[{{"message": {DEEP}}}]', json.dumps([WRONG]),
        json.dumps([dict.fromkeys(WRONG, BAD)]),
    ],
    "progress": [
        "7", "[]", '"x"', "{}", f'{{"fraction": {json.dumps(BAD)}, "text": 7}}', '{"fraction": 1e5000}', DEEP,
        json.dumps({"fraction": 0.5, "text": BAD}),
    ],
    "tags": ["{NULL}", "{{a,b},{c,d}}", '{"' + BAD.replace("\\", "\\\\") + '"}'],
    "run_at": ["0044-03-15 BC", "-infinity", "0001-01-01 BC", "9999-12-31", "294276-12-31"],
    "enqueued_at": ["infinity", "-infinity", "4713-01-01 BC"],
    "claimed_at": ["infinity", "-infinity"],
    "failed_at": ["infinity", "-infinity"],
    "cancel_requested_at": ["infinity", "-infinity"],
}  # fmt: skip
CASES = [(column, value) for column, values in FIELDS.items() for value in values]
STATES: dict[str, dict[str, Any]] = {
    "failed": {"attempt": 2, "failed_at": "2026-01-01", "errors": '[{"type": "E", "message": "m"}]'},
    "running": {"attempt": 1, "token": 1, "node": 1, "claimed_at": "2026-01-01"},
    "scheduled": {"run_at": "2099-01-01"},
}  # fmt: skip


def insert(conn: psycopg.Connection[Any], state: str, **changed: str) -> int | None:
    """Put the job into the table; None where the table refuses it, which is another way to be safe from it."""
    columns = {"state": state, "task": "t", "queue": "q", "args": "{}"} | STATES[state] | changed
    names, positions = ", ".join(columns), ", ".join(["%s"] * len(columns))
    try:
        statement = f"INSERT INTO qworker.job ({names}) VALUES ({positions}) RETURNING id"  # noqa: S608
        row = conn.execute(statement, list(columns.values())).fetchone()
    except psycopg.Error:
        return None
    assert row is not None
    return int(row[0])


@pytest.fixture
def hostile(database: Database) -> dict[int, str]:
    """All cases in every state that has the column, as the table takes them; their columns by id."""
    found, conn = {}, database.connect()
    for state in STATES:
        for column, value in CASES:
            job_id = insert(conn, state, **{column: value})
            if job_id is not None:
                found[job_id] = column
    # The table may refuse some of them. The fields where it hurts have to be there.
    assert {"args", "errors", "progress", "tags"} <= set(found.values())
    return found


#: The codes of the colors and styles of tables.
COLOR = re.compile(r"\x1b\[(?:0|1|2|31|32|33|36)m")


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, end = pty.openpty()
    try:
        yield master, end
    finally:
        for fd in (master, end):
            with suppress(OSError):
                os.close(fd)


def on_terminal(database: Database, *words: object, term: str = "dumb") -> tuple[int, str]:
    """Run `qworker ...` with a terminal as its output; return exit status and what it printed, errors included."""
    with terminal() as (master, end):
        command = [sys.executable, "-m", "qworkerd", *map(str, words)]
        environment = os.environ | {"QWORKER_DSN": database.dsn, "TERM": term, "COLUMNS": "500"}
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=environment) as process:
            os.close(end)
            printed = b""
            with suppress(OSError):  # how a terminal's other side says that nobody writes any more
                while part := os.read(master, 1 << 16):
                    printed += part
        return process.returncode, printed.decode().replace("\r\n", "\n")


def is_harmless(printed: str) -> None:
    assert "Traceback (most recent call last)" not in printed
    assert not OBEYED & set(printed)
    assert "hunter2" not in printed


def test_lists_are_shown_whatever_the_rows_hold(hostile: dict[int, str], database: Database) -> None:
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state) VALUES (%(bad)s, %(bad)s,"
        " ARRAY[%(bad)s, NULL], 8, 30, jsonb_build_object('workers', jsonb_build_array(jsonb_build_object(%(bad)s,"
        " %(bad)s)))),"
        " ('n', 'v', '{}', 1, 86400, '{\"workers\": 7}'),"
        " ('n', 'v', '{}', 1, 1, jsonb_build_object('workers', %(digits)s::jsonb))",
        {"bad": BAD, "digits": DIGITS},
    )
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by) VALUES"
        " (%(bad)s, %(bad)s, %(bad)s, %(bad)s, '1970-01-01 00:00:00+00', 1),"
        " ('n', 't', '* * * * *', '..', '294276-01-01', 1)",
        {"bad": BAD},
    )
    for words in (["jobs", "list", "--limit", 1000], ["queues"], ["workers"], ["cron"]):
        code, printed = on_terminal(database, *words)
        assert code == 0, printed[-2000:]
        is_harmless(printed)
        code, printed = on_terminal(database, *words, term="xterm")
        assert code == 0, printed[-2000:]
        assert COLOR.search(printed)
        is_harmless(COLOR.sub("", printed))
        code, printed = on_terminal(database, *words, "--json")
        assert code == 0, printed[-2000:]
        is_harmless(printed)
        assert json.loads(printed)
    assert len(json.loads(on_terminal(database, "jobs", "list", "--limit", 1000, "--json")[1])) == len(hostile)


def test_each_job_is_shown(hostile: dict[int, str], command: Command) -> None:
    for job_id in hostile:
        for words in (
            ["jobs", "show", job_id],
            ["jobs", "show", job_id, "--json"],
            ["jobs", "compare", job_id, job_id],
        ):
            begun = time.process_time()
            done = command(*words)
            assert done.exit_code == 0, done.output
            is_harmless(done.output)
            # Nesting must not cost more to show than it takes to store.
            assert len(done.stdout) < 200_000
            assert time.process_time() - begun < 5
            if "--json" in words:
                assert json.loads(done.stdout)["id"] == job_id


def test_failed_jobs_beside_them_are_retried_and_they_as_well(hostile: dict[int, str], command: Command) -> None:
    done = command("jobs", "retry", "state:failed", "--yes", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["done"] > 20
    assert command("jobs", "list", "state:failed").stdout.count("\n") == 1


def test_whoever_waits_for_such_a_job_hears_how_it_ended(database: Database) -> None:
    app = App(database.dsn)
    for column, value in CASES:
        if job_id := insert(database.connect(), "failed", **{column: value}):
            with pytest.raises(JobFailed) as raised:
                app.job(job_id).wait(timeout=1)
            assert isinstance(raised.value.message, str)
            assert isinstance(raised.value.attempt, int)
        job_id = insert(database.connect(), "scheduled", **{column: value})
        if job_id and app.job(job_id).cancel():
            with pytest.raises(JobCancelled):
                app.job(job_id).wait(timeout=1)


@pytest.mark.parametrize("value", ["1e5000", DEEP, DIGITS, f'"{"x" * 100_000}"', "1.5e400"])
def test_a_result_that_cannot_be_read_is_a_result(database: Database, command: Command, value: str) -> None:
    conn = database.connect()
    row = conn.execute(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses,"
        " is_hook, queue, task, args, result) VALUES (nextval('qworker.job_id_seq'), now(), now(), 'completed', 1,"
        " qworker.history_day(now()), 5, 0, 0, false, 'q', 't', '{}', %s) RETURNING id",
        [value],
    ).fetchone()
    assert row is not None
    App(database.dsn).job(row[0]).wait(timeout=1)
    assert "hunter2" not in command("jobs", "show", row[0]).output
    assert json.loads(command("jobs", "show", row[0], "--json").stdout)["result"]


def test_json_is_json_when_an_argument_is_called_password(database: Database, command: Command) -> None:
    args = {
        "password": "hunter2",
        "note": "password: none",
        "dsn": "postgresql://u:hunter2@h/db",
        "n": [1, {"passwd": 7}],
    }
    job_id = insert(database.connect(), "scheduled", args=json.dumps(args))
    (found,) = json.loads(command("jobs", "list", "--json").stdout)
    assert found["id"] == job_id
    assert found["args"] == {
        "password": "***", "note": "password: ***", "dsn": "postgresql://u:***@h/db", "n": [1, {"passwd": "***"}],
    }  # fmt: skip


def test_what_is_typed_comes_back_harmless_in_messages(command: Command) -> None:
    for words in (
        ["enqueue", BAD],
        ["jobs", "list", "--queue", BAD],
        ["--schema", BAD, "queues"],
        ["enqueue", "t", f"[{BAD}]"],
    ):
        printed = command(*words).output
        assert not OBEYED & set(printed), words
