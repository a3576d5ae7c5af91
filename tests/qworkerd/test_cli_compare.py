"""`qworker jobs compare`."""

import json
from typing import Any

import pytest

from tests.database import Database
from tests.qworkerd.conftest import Command

ERROR = {
    "at": "2026-11-27T12:00:05.000+00:00", "attempt": 1, "type": "ValueError", "message": "no \x1b[2J", "ran": 2.5,
    "traceback": 'Traceback (most recent call last):\n  File "/srv/shop/mail.py", line 3, in send\n    deliver()\n',
    "fingerprint": f"{1:016x}",
    "logs": [{"timestamp": "2026-11-27T12:00:04+00:00", "level": "info", "event": "connecting to h password=hunter2"}],
}  # fmt: skip


def failed(database: Database, **args: Any) -> int:
    row = database.connect().execute(
        "INSERT INTO qworker.job (state, queue, task, args, errors, attempt, claimed_at, failed_at) VALUES ('failed',"
        " 'mail', 'shop.send', %s, %s, 1, '2026-11-27T12:00:02+00:00', '2026-11-27T12:00:05+00:00') RETURNING id",
        [json.dumps(args), json.dumps([ERROR])],
    ).fetchone()  # fmt: skip
    assert row
    return int(row[0])


def ended(database: Database, number: int, **args: Any) -> int:
    database.connect().execute(
        "INSERT INTO qworker.job_history (id, state, queue, task, args, attempt, priority, crashes, node_losses,"
        " is_hook, enqueued_at, claimed_at, finished_at, ring_day) VALUES (%s, 'completed', 'mail', 'shop.send', %s, 1,"
        " 3, 0, 0, false, now() - interval '9 s', now() - interval '8 s', now(), qworker.history_day(now()))",
        [number, json.dumps(args)],
    )
    return number


def test_what_differs_is_shown(command: Command, database: Database) -> None:
    a = failed(database, order=17, to="ann", password="hunter2a")
    b = ended(database, 5_000, order=18, to="ann", password="hunter2b", **{"a b": None})

    done = command("jobs", "compare", a, b)

    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == f"JOB {a} JOB {b} COMPARED"
    for line in (
        "state failed completed -",
        "priority 5 3 -",
        "order 17 18",
        '"a b" missing null',
        "ValueError: no \\x1b[2J 1 0",
    ):
        assert line in lines, done.stdout
    assert any(line.startswith("ran 3s 8s") and line.endswith(f"job {b}: 2.7 x as long") for line in lines)
    assert "/srv/shop/mail.py" in done.stdout
    assert "connecting to h" in done.stdout
    assert "hunter2" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "to ann" not in lines
    assert "queue" in done.stderr


def test_json_has_all_of_it(command: Command, database: Database) -> None:
    a, b = failed(database, order=17, password="hunter2a"), ended(database, 5_000, order=18)

    text = command("jobs", "compare", a, b, "--json").stdout

    found = json.loads(text)
    assert (found["a"], found["b"], found["arguments"]["different_count"]) == (a, b, 2)
    assert found["arguments"]["different"][0] == {"path": ["order"], "a": 17, "b": 18}
    assert found["jobs"][0]["times"]["ran"] == 3
    assert found["typical"][0]["run"] is None
    assert "hunter2" not in text


def test_without_another_job_it_is_compared_with_the_last_success(command: Command, database: Database) -> None:
    a = failed(database)
    none = command("jobs", "compare", a)
    assert (none.exit_code, none.stdout) == (1, "")
    assert none.stderr == "no other successful run of shop.send in queue mail is stored\n"
    ended(database, 5_000)
    ended(database, 5_001)
    assert json.loads(command("jobs", "compare", a, "--json").stdout)["b"] == 5_001
    itself = command("jobs", "compare", a, a)
    assert (itself.exit_code, "both are the same job" in itself.stderr) == (0, True)


@pytest.mark.parametrize(("words", "code", "said"), [(["17"], 1, "17"), (["x"], 2, "'x'"), ([], 2, "ID")])
def test_a_job_that_is_not_there_is_named(command: Command, words: list[str], code: int, said: str) -> None:
    done = command("jobs", "compare", *words)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
