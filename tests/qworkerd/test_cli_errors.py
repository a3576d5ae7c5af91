"""`qworker errors`: what fails, grouped, and what is done with a group."""

import json

import pytest

from qworker.error_groups import ErrorGroups
from qworker.fingerprint import fingerprint, from_hex, to_hex
from qworkerd.cli.layout import lines_with_note
from qworkerd.cli.sparkline import sparkline
from tests.database import Database
from tests.qworker.claimer import TOKEN, Claimer
from tests.qworkerd.conftest import Command

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 7, in pay
    gateway.charge(order)
  File "/venv/lib/python3.11/site-packages/gateway/api.py", line 99, in charge
    raise Declined(order)
gateway.Declined: order 17 \x1b[2J
"""
KEY = to_hex(fingerprint("noop", "gateway.Declined", "order 17", "shop.tasks:pay"))


@pytest.fixture
def jobs(database: Database) -> list[int]:
    """Three failed jobs of one group, and one of another."""
    other = {
        "type": "OSError",
        "message": "password=hunter2",
        "fingerprint": "00000000000000ff",
        "group": {"type": "OSError", "message": "password=hunter2"},
    }
    error = {
        "type": "gateway.Declined",
        "message": "order 17 \x1b[2J",
        "traceback": TRACEBACK,
        "fingerprint": KEY,
        "attempt": 1,
        "group": {
            "type": "gateway.Declined",
            "message": "order <n> \x1b[2J",
            "frame": "shop.tasks:pay",
            "release": "v7",
        },
    }
    with Claimer(database) as claimer:
        ids = claimer.insert(4)
        claimer.claim(4)
        for job, record in zip(ids, [error, error, error, other], strict=True):
            claimer.statements.fail(claimer.conn, TOKEN, job, error=json.dumps(record), hook=False)
        ErrorGroups().fold(claimer.conn)
    return ids


def states(command: Command, ids: list[int]) -> list[str]:
    return [json.loads(command("jobs", "show", job, "--json").stdout)["state"] for job in ids]


def test_the_list_shows_each_group_once(command: Command, jobs: list[int]) -> None:
    head, *rows = command("errors").stdout.splitlines()
    assert head.split() == ["FINGERPRINT", "COUNT", "LAST", "BARS", "TASK", "ERROR"]
    assert len(rows) == 2
    (row,) = [line for line in rows if KEY in line]
    assert "\\x1b[2J" in row
    assert "\x1b" not in row
    assert " 3 " in row
    assert "hunter2" not in "".join(rows)
    assert command("errors", "list", "--task", "other").stderr == "no open errors of task 'other'\n"
    assert command("errors", "--queue", "other").stderr == "no open errors in queue 'other'\n"
    nothing = command("errors", "--state", "all", "--task", "other", "--since", "30m")
    assert nothing.stderr == "no errors of task 'other' in the last 30m\n"
    assert command("errors", "list", "--queue", "default", "--since", "1h", "--limit", 1).stdout.count("\n") == 2


def test_the_group_takes_the_options_of_its_list(command: Command, jobs: list[int]) -> None:
    """What the documentation writes without `list`, and what other groups accept."""
    listed = json.loads(command("errors", "list", "--json").stdout)
    assert [group["fingerprint"] for group in listed]
    assert json.loads(command("errors", "--json").stdout) == listed
    assert json.loads(command("errors", "--schema", "qworker", "--json", "--limit", 1).stdout) == listed[:1]
    assert json.loads(command("errors", "--schema=qworker", "--state", "muted", "--json").stdout) == []
    assert json.loads(command("errors", "--schema", "qworker", "show", KEY, "--json").stdout)["fingerprint"] == KEY
    refused = command("errors", "--nope")
    assert (refused.exit_code, "No such option" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("errors --json show x", "put --json after the subcommand: qworker errors show --json"),
        ("errors --queue show", "no open errors in queue 'show'"),
        ("errors --queue mail show x", "qworker errors show has no option --queue"),
        ("queues --json pause mail", "put --json after the subcommand: qworker queues pause --json"),
        ("cron --schema qworker --json run x", "put --json after the subcommand: qworker cron run --json"),
        ("workers --json resume x", "put --json after the subcommand: qworker workers resume --json"),
    ],
)
def test_an_option_of_the_list_before_another_subcommand_is_refused(command: Command, words: str, error: str) -> None:
    done = command(*words.split())
    assert (done.exit_code, error in done.stderr) == (0 if error.startswith("no open") else 2, True), done.stderr


@pytest.mark.parametrize("group", ["errors", "queues", "cron", "workers"])
def test_each_group_lists_without_a_subcommand(command: Command, group: str) -> None:
    assert command(group).exit_code == 0
    assert json.loads(command(group, "--json").stdout) == json.loads(command(group, "list", "--json").stdout)
    assert command(group, "--help").stdout.startswith(f"Usage: qworker {group} [OPTIONS] COMMAND")
    assert "Commands:" in command("errors", "--help").stdout


def test_counts_are_those_of_a_time(command: Command, jobs: list[int], database: Database) -> None:
    database.connect().execute(
        "INSERT INTO qworker.error_stat (fingerprint, at, count) VALUES (%s, date_bin('10 minutes', now() - interval"
        " '3 hours', '2000-01-01 00:00:00+00'), 5)", [from_hex(KEY)],
    )  # fmt: skip
    database.connect().execute("UPDATE qworker.error_group SET first_seen = now() - interval '4 hours'")

    _, *rows = command("errors", "list", "--from", "200m", "--to", "160m").stdout.splitlines()
    found = json.loads(command("errors", "list", "--from", "200m", "--json").stdout)

    assert [row.split()[:2] for row in rows if not row.startswith(" ")] == [[KEY, "5"]]
    assert {group["fingerprint"]: sum(group["recent"]) for group in found} == {KEY: 8, "00000000000000ff": 1}
    shown = command("errors", "show", KEY, "--from", "200m", "--to", "160m").stdout
    assert "5 failed attempts from " in shown
    assert "24 hours" not in shown
    assert command("errors", "list", "--from", "2h", "--to", "1h").stderr.startswith("no open errors from ")
    assert "kept for 7 days" in command("errors", "list", "--from", "9d", "--to", "8d").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "yesterday"], "'yesterday' is not a time"), (["--to", "1h"], "--from is missing"),
        (["--from", "1h", "--to", "2h"], "not after"), (["--from", "8d"], "counts are kept for 7"),
        (["--from", "1h", "--since", "1h"], "pass --since, or --from and --to"),
    ],
)  # fmt: skip
def test_a_time_out_of_bounds_is_refused(command: Command, words: list[str], message: str) -> None:
    found = command("errors", "list", *words)
    assert (found.exit_code, message in found.stderr) == (2, True), found.stderr


def test_lines_fit_a_terminal_of_80_columns() -> None:
    texts = [[KEY, "1234567", "17:13:45+00", "▁" * 12, "shop.tasks.charge", "ValueError: " + "x" * 300]]
    for line in lines_with_note(
        ("FINGERPRINT", "COUNT", "LAST", "BARS", "TASK", "ERROR"), texts, [False, True] + [False] * 4, 80
    ):
        assert len(line) <= 80


def test_json_has_all_fields(command: Command, jobs: list[int]) -> None:
    found = {group["fingerprint"]: group for group in json.loads(command("errors", "list", "--json").stdout)}
    group = found[KEY]
    assert (group["count"], group["last_release"], group["frame"]) == (3, "v7", "shop.tasks:pay")
    assert sum(group["recent"]) == 3
    shown = json.loads(command("errors", "show", KEY, "--json").stdout)
    assert (shown["failed_jobs"], shown["sample"]["traceback"]) == (3, TRACEBACK)
    assert {**group, "recent": 0}.items() <= {**shown, "recent": 0}.items()


def test_a_group_is_shown_with_the_frames_of_the_application(command: Command, jobs: list[int]) -> None:
    shown = command("errors", "show", KEY).stdout
    assert shown.startswith("gateway.Declined: order <n> \\x1b[2J\n")
    for part in (
        "shop.tasks:pay",
        "release v7",
        "3 failed attempts",
        f"qworker jobs show {jobs[2]}",
        "/srv/shop/tasks.py",
    ):
        assert part in shown
    assert "site-packages" not in shown
    assert "\x1b" not in shown


def test_all_failed_jobs_of_a_group_are_retried(command: Command, jobs: list[int]) -> None:
    asked = command("errors", "retry", KEY)
    assert "3 jobs match" in asked.stderr
    assert asked.exit_code == 1
    assert states(command, jobs) == ["failed"] * 4
    done = command("errors", "retry", KEY, "--yes", "--note", "gateway is back")
    assert done.stdout.endswith(": 3 jobs retried\n")
    assert states(command, jobs) == ["available"] * 3 + ["failed"]
    assert "gateway is back" in command("audit", "--json").stdout
    assert json.loads(command("errors", "retry", KEY, "--json").stdout) is None


def test_all_failed_jobs_of_a_group_are_discarded_at_a_rate(command: Command, jobs: list[int]) -> None:
    done = json.loads(command("errors", "discard", KEY, "--yes", "--rate", "1000/s", "--json").stdout)
    assert (done["action"], done["done"], done["expected"], done["rate"]) == ("discard", 3, 3, 1000)
    assert done["filter"] == f"fp:{KEY} state:failed"
    assert states(command, jobs) == ["discarded"] * 3 + ["failed"]


def test_a_group_is_retried_by_the_nodes(command: Command, jobs: list[int]) -> None:
    assert "is running" in command("errors", "retry", KEY, "--yes", "--detach").stdout
    assert KEY in command("operations", "list").stdout
    assert states(command, jobs) == ["failed"] * 4


def test_a_group_without_message_does_not_have_the_jobs_of_other_groups(
    command: Command, jobs: list[int], database: Database
) -> None:
    conn, rest = database.connect(), f"{KEY[:-6]}000000"
    unknown = from_hex(f"{KEY[:-6]}ffffff")
    conn.execute("UPDATE qworker.job SET fingerprint = %s WHERE id = %s", (unknown, jobs[0]))
    conn.execute(
        "INSERT INTO qworker.error_group"
        " (fingerprint, task, type, count, first_seen, last_seen, first_job, samples, queues)"
        " SELECT %s, task, type, 1, first_seen, last_seen, first_job, samples, queues"
        "   FROM qworker.error_group WHERE fingerprint = %s",
        (from_hex(rest), from_hex(KEY)),
    )
    assert command("errors", "retry", rest, "--yes").stdout.endswith(": 1 job retried\n")
    assert states(command, jobs) == ["available"] + ["failed"] * 3


def test_a_group_is_muted_resolved_and_reopened(command: Command, jobs: list[int]) -> None:
    assert command("errors", "mute", KEY).stdout == f"group {KEY} is muted\n"
    assert KEY not in command("errors").stdout
    assert KEY in command("errors", "list", "--state", "muted").stdout
    assert "muted" in command("errors", "list", "--state", "all").stdout
    assert command("errors", "mute", KEY).stdout == f"group {KEY} was already muted\n"
    assert json.loads(command("errors", "resolve", KEY, "--json").stdout)["changed"]
    assert command("errors", "reopen", KEY).stdout == f"group {KEY} is open\n"
    assert KEY in command("errors").stdout
    assert "error.reopen" in command("audit").stdout


@pytest.mark.parametrize("words", [["show"], ["mute"], ["retry"], ["discard"]])
def test_a_group_that_does_not_exist_is_named(command: Command, words: list[str]) -> None:
    result = command("errors", *words, "00000000000000ab")
    assert result.exit_code == 1
    assert (
        "group of errors '00000000000000ab' not found; `qworker errors list` lists all; a failed attempt is"
        in result.stderr
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "xyz"], "'xyz' is not a fingerprint"),
        (["list", "--since", "yesterday"], "'yesterday' is not a duration"),
        (["list", "--since", "0"], "'0' is not a duration"),
        (["list", "--state", "closed"], "'closed' is not one of"),
    ],
)
def test_a_wrong_value_is_named(command: Command, words: list[str], message: str) -> None:
    result = command("errors", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_row_edited_by_hand_is_shown(command: Command, jobs: list[int], database: Database) -> None:
    database.connect().execute(
        "UPDATE qworker.error_group SET samples = '{}', message = E'a\\u202eb\\nc', queues = '{}'"
    )
    assert command("errors").exit_code == 0
    assert "\\u202e" in command("errors", "show", KEY).stdout


@pytest.mark.parametrize(
    ("counts", "line"),
    [((), ""), ((0, 0), "··"), ((1,), "█"), ((0, 1, 4, 8), "·▁▄█"), ((5, 5), "██"), ((1, 10**9), "▁█")],
)
def test_bars_are_relative_to_the_largest(counts: tuple[int, ...], line: str) -> None:
    assert sparkline(counts) == line
