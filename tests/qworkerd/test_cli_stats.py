"""`qworker stats` and `qworker queues stats`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from qworker.db.connection import connect
from tests.database import Database
from tests.qworker.test_statistics import Writer
from tests.qworkerd.conftest import Command

HOSTILE = "se\x1b[2Jnd"


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    with connect(database.dsn, "test") as conn:
        yield Writer(conn)


def test_counts_and_percentiles_are_shown(command: Command, writer: Writer) -> None:
    writer.write("mail", "send", succeeded=7, failed=1, retried=2, signalled=1, run_seconds=7.0, run_bucket=[0, 56],
                 run_count=[1, 6], wait_seconds=1.0, wait_bucket=[40], wait_count=[7])  # fmt: skip
    shown = command("stats")
    assert (shown.exit_code, shown.stderr) == (0, "")
    head, row = shown.stdout.splitlines()
    assert " ".join(head.split()) == "QUEUE TASK DONE FAILED RETRY CRASH WAIT P95 RUN P95"
    assert row.split() == ["mail", "send", "7", "1", "2", "1", "70ms", "70ms", "1.1s", "1.1s"]
    assert len(head) <= 80
    assert command("queues", "stats").stdout.splitlines()[1].split()[:3] == ["mail", "7", "1"]


def test_nothing_to_show_says_so(command: Command, database: Database) -> None:
    shown = command("stats", "--task", "send", "--period", "7d")
    assert (shown.exit_code, shown.stdout.split()[:2]) == (0, ["QUEUE", "TASK"])
    assert shown.stderr == "no job of task 'send' has ended in the last 7d; counts are up to two minutes late\n"
    assert "queue 'mail'" in command("queues", "stats", "mail").stderr
    assert command("stats", "--period", "2h").exit_code == 2


def test_json_has_all_numbers_and_the_load(command: Command, writer: Writer) -> None:
    writer.write("mail", "send", succeeded=3, run_seconds=3.0, run_bucket=[55], run_count=[3])
    writer.conn.execute("INSERT INTO qworker.job (queue, task) VALUES ('mail', 'send'), ('mail', 'send')")
    found: dict[str, Any] = json.loads(command("stats", "--json", "--target-drain", "1s").stdout)
    assert found["period"] == "1h"
    assert found["tasks"][0]["run"]["count"] == 3
    assert found["tasks"][0]["succeeded"] == 3
    mail = found["queues"]["mail"]
    assert (mail["available"], mail["wanted_workers"], mail["drain_seconds"]) == (2, 3, None)
    assert json.loads(command("queues", "stats", "--json").stdout)["mail"]["run"]["mean"] == 1.0


def test_counts_are_those_of_a_time(command: Command, writer: Writer) -> None:
    writer.write("mail", "send", succeeded=3)
    writer.conn.execute(
        "INSERT INTO qworker.stat (width, at, series, succeeded) SELECT 10, date_bin('10 minutes', now() - interval"
        " '3 hours', '2000-01-01 00:00:00+00'), id, 11 FROM qworker.series"
    )
    for words in (["stats"], ["queues", "stats"]):
        rows = command(*words, "--from", "200m", "--to", "160m").stdout.splitlines()
        assert "11" in rows[1].split()
        assert "3" in command(*words).stdout.splitlines()[1].split()
        none = command(*words, "--from", "10h", "--to", "9h")
        assert "has ended from " in none.stderr
        refused = command(*words, "--period", "1h", "--from", "2h")
        assert (refused.exit_code, "pass --period, or --from and --to" in refused.stderr) == (2, True)
        assert command(*words, "--from", "40d").exit_code == 2
    found = json.loads(command("stats", "--json", "--from", "200m", "--to", "160m").stdout)
    assert (found["tasks"][0]["succeeded"], "period" in found, found["from"] < found["to"]) == (11, False, True)


def test_hostile_names_are_visible(command: Command, writer: Writer) -> None:
    writer.write("mail", HOSTILE, succeeded=1)
    assert "\x1b" not in command("stats").stdout
    assert "\\x1b[2J" in command("stats").stdout


def test_a_name_of_which_nothing_was_counted_is_probably_misspelt(command: Command, database: Database) -> None:
    database.connect().execute("INSERT INTO qworker.series (queue, task) VALUES ('mail', 'shop.send')")
    for words, meant in (
        (["stats", "--queue", "mial"], "mail"), (["stats", "--task", "shop.sned"], "shop.send"),
        (["queues", "stats", "mial"], "mail"),
    ):  # fmt: skip
        assert command(*words).stderr.endswith(f"counts are up to two minutes late; did you mean {meant!r}?\n")
    for words in (["stats", "--queue", "mail"], ["stats"], ["queues", "stats", "mail"], ["stats", "--queue", "zzz"]):
        assert "did you mean" not in command(*words).stderr
