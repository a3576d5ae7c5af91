"""Actions on jobs by a filter: they show what matches, ask, and are carried out by whoever is there."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qworker.operations import Action, Operation
from qworkerd.cli import operations
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_cli_jobs import make, state

__all__ = ["make"]


def states(database: Database) -> dict[str, int]:
    rows = database.connect().execute("SELECT state, count(*)::int FROM qworker.jobs GROUP BY state").fetchall()
    return dict(rows)


def test_an_error_points_at_the_word(command: Command) -> None:
    done = command("jobs", "list", "queue:mail", "stae:failed")
    assert done.exit_code == 2
    assert "unknown key \"stae\"; did you mean 'state'?\n  queue:mail stae:failed\n             ^\n" in done.stderr


def test_a_key_that_is_written_as_an_option_is_explained(command: Command) -> None:
    done = command("jobs", "list", "--state", "failed")
    assert done.exit_code == 2
    assert "unknown option --state; write state:failed" in done.stderr
    assert "unknown option" not in command("jobs", "list", "--nope").stderr.lower().replace("no such option", "")


def test_what_a_shell_has_unquoted_is_one_value(command: Command, make: Any) -> None:
    job_id = make("failed", errors='[{"message": "connection refused: x"}]')
    found = json.loads(command("jobs", "list", "message:connection refused", "--json").stdout)
    assert [job["id"] for job in found] == [job_id]
    assert json.loads(command("jobs", "list", "queue:emails task:nope", "--json").stdout) == []


def test_a_search_that_has_reached_its_limit_says_how_to_continue(
    command: Command, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworker.search.SLICE", 1)
    monkeypatch.setattr("qworker.search.QUICK", 0.0)
    monkeypatch.setattr("qworker.search.MAX_SLICES", 3)
    ids = [make() for _ in range(5)]
    done = command("jobs", "list", "task:nope")
    assert done.exit_code == 0
    assert "none found among the jobs searched so far, to " in done.stderr
    assert "(no index serves task:nope)" in done.stderr
    assert done.stderr.endswith(f"; continue with --below {ids[2]}\n")
    rest = command("jobs", "list", "task:nope", "--below", ids[2])
    assert rest.stderr == "no matching jobs\n"


def test_the_oldest_and_the_slowest_first(command: Command, make: Any) -> None:
    ids = [make() for _ in range(3)]
    done = command("jobs", "list", "--sort", "oldest", "--limit", 2)
    assert [int(line.split()[0]) for line in done.stdout.splitlines()[1:]] == ids[:2]
    assert f"continue with --above {ids[1]}" in done.stderr
    assert command("jobs", "list", "--sort", "oldest", "--below", 1).exit_code == 2
    assert command("jobs", "list", "--sort", "slowest").exit_code == 0


def test_what_matches_is_shown_and_nothing_is_done_unless_confirmed(
    command: Command, make: Any, database: Database
) -> None:
    ids = [make("failed", queue="a") for _ in range(7)]
    other = make("failed", queue="b")
    refused = command("jobs", "retry", "queue:a", stdin="n\n")
    assert refused.exit_code == 1
    assert "7 jobs match queue:a state:failed, among them:\n" in refused.stderr
    assert "retry 7 jobs? [y/N]" in refused.stderr
    assert [int(line.split()[0]) for line in refused.stderr.splitlines()[2:7]] == ids[:1:-1]
    assert states(database) == {"failed": 8}
    assert command("jobs", "retry", "queue:a", stdin="").exit_code == 1
    done = command("jobs", "retry", "queue:a", stdin="y\n")
    assert done.exit_code == 0
    assert done.stdout.endswith(": 7 jobs retried\n")
    assert states(database) == {"failed": 1, "available": 7}
    assert state(database, other) == "failed"


def test_nothing_that_matches_is_said_so(command: Command, make: Any) -> None:
    make()
    done = command("jobs", "discard", "queue:emails", "--yes")
    assert (done.exit_code, done.stderr) == (0, "no jobs match: queue:emails state:failed\n")


@pytest.mark.parametrize(("words", "before", "after"), [
    (["cancel"], "scheduled", {"cancelled": 3}), (["discard"], "failed", {"discarded": 3}),
    (["run-now"], "scheduled", {"available": 3}), (["again"], "failed", {"failed": 3, "available": 3}),
])  # fmt: skip
def test_each_action_takes_a_filter_or_ids(
    command: Command, make: Any, database: Database, words: list[str], before: str, after: dict[str, int]
) -> None:
    ids = [make(before) for _ in range(3)]
    done = json.loads(command("jobs", *words, f"id:{ids[0]},{ids[1]}", "--yes", "--json", "--rate", "100/s").stdout)
    assert (done["done"], done["state"], done["rate"]) == (2, "completed", 100)
    done = command("jobs", *words, ids[2], "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)[str(ids[2])]["changed"]
    assert states(database) == after


def test_jobs_are_moved(command: Command, make: Any, database: Database) -> None:
    one, two, failed = make(), make(), make("running")
    assert command("jobs", "move", one, "--queue", "bulk", "--priority", 9).stdout == (
        f"job {one} is in queue 'bulk' with priority 9\n"
    )
    assert command("jobs", "move", "queue:emails", "--queue", "bulk", "--yes").stdout.endswith(": 1 job moved\n")
    rows = database.connect().execute("SELECT id, queue, priority FROM qworker.job ORDER BY id").fetchall()
    assert rows == [(one, "bulk", 9), (two, "bulk", 5), (failed, "emails", 5)]
    assert command("jobs", "move", one).exit_code == 2
    assert command("jobs", "move", one, "--queue", "a,b").exit_code == 2
    assert command("jobs", "move", failed, "--queue", "a").exit_code == 1


def test_a_note_is_stored_with_the_actor(command: Command, make: Any) -> None:
    job_id = make("failed")
    command("jobs", "retry", job_id, "--note", "ticket 7")
    (entry,) = json.loads(command("audit", "--job", job_id, "--json").stdout)
    assert (entry["action"], entry["via"], entry["note"]) == ("job.retry", "cli", "ticket 7")


def test_arguments_are_edited_and_checked_against_the_task(
    command: Command, make: Any, shop: Path, database: Database
) -> None:
    job_id = make("failed", task="shop.send")
    app = {"QWORKER_APP": "shop:app"}
    for wrong in ('{"nope": 1}', "{", "7", "{}"):
        assert command("jobs", "retry", job_id, "--args", wrong, env=app).exit_code == 2, wrong
    assert state(database, job_id) == "failed"
    done = command("jobs", "retry", job_id, "--args", '{"user_id": 8}', env=app)
    assert (done.stdout, done.stderr) == (f"job {job_id} is available again\n", "")
    found = json.loads(command("jobs", "show", job_id, "--json").stdout)
    assert found["args"] == {"user_id": 8}
    again = make("failed", task="other")
    assert command("jobs", "retry", again, "--args", "[1, 2]").exit_code == 0
    assert json.loads(command("jobs", "show", again, "--json").stdout)["args"] == {"*": [1, 2]}


def test_a_copy_takes_other_arguments(command: Command, make: Any, shop: Path, database: Database) -> None:
    job_id, app = make("failed", task="shop.send"), {"QWORKER_APP": "shop:app"}
    refused = command("jobs", "again", job_id, "--args", '{"nope": 1}', env=app)
    assert (refused.exit_code, "user_id" in refused.stderr) == (2, True)
    done = command("jobs", "again", job_id, "--args", '{"user_id": 8}', "--json", env=app)
    assert done.exit_code == 0
    (copy,) = json.loads(command("jobs", "list", "task:shop.send", "state:available", "--json").stdout)
    assert (copy["args"], copy["meta"]) == ({"user_id": 8}, {"copy_of": job_id})
    assert state(database, job_id) == "failed"
    assert command("jobs", "again", "state:failed", "--args", "{}").exit_code == 2


def test_an_operation_is_listed_shown_and_stopped(command: Command, make: Any, database: Database) -> None:
    for _ in range(3):
        make("failed")
    done = command("jobs", "retry", "state:failed", "--yes", "--detach", "--rate", "1/h")
    made = json.loads(command("operations", "list", "--running", "--json").stdout)[0]["id"]
    assert f"`qworker operations show {made}` shows how far it is" in done.stdout
    assert states(database) == {"failed": 3}  # no node runs
    listed = command("operations", "list").stdout.splitlines()
    assert listed[0].split() == ["ID", "ACTION", "STATE", "DONE", "OF", "SKIPPED", "FAILED", "CREATED", "BY", "FILTER"]
    assert listed[1].split()[:5] == [str(made), "retry", "running", "0", "3"]
    assert "state        running\n" in command("operations", "show", made).stdout
    assert command("operations", "stop", made).stdout == f"operation {made} is stopped: 0 jobs retried\n"
    assert command("operations", "stop", made).exit_code == 1
    assert command("operations", "list", "--running").stderr == "no operations\n"
    assert command("operations", "show", made + 1).exit_code == 1


def test_who_waits_takes_part(command: Command, make: Any, database: Database) -> None:
    make("failed")
    made = json.loads(command("jobs", "retry", "state:failed", "--yes", "--detach", "--json").stdout)["id"]
    done = json.loads(command("operations", "show", made, "--wait", "--json").stdout)
    assert (done["state"], done["done"]) == ("completed", 1)


def test_progress_is_a_line_on_a_terminal(
    command: Command, make: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make("failed")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with operations._progress() as shown:
        shown(_operation())
    assert "operation 3: 5 of 10 (50%), " in capsys.readouterr().err


def _operation() -> Operation:
    return Operation(
        id=3, action=Action.RETRY, filter="", options={}, upper_id=1, below=1, rate=None, expected=10, done=4,
        skipped=1, failed=0, state="running", actor="a", address=None, note=None, error=None,
        created_at=datetime.now(UTC), finished_at=None,
    )  # fmt: skip


def test_json_of_copies_names_the_copies(command: Command, make: Any) -> None:
    """A script that runs jobs again has to follow the new ones."""
    first, second, waiting = make("failed"), make("failed"), make()
    done = command("jobs", "again", first, second, waiting, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found[str(waiting)] == {"changed": False, "state": "available", "copy": None}
    for job in (first, second):
        copy = found[str(job)]["copy"]
        assert json.loads(command("jobs", "show", copy, "--json").stdout)["meta"]["copy_of"] == job
    assert "copy" not in json.loads(command("jobs", "retry", first, "--json").stdout)[str(first)]


def test_where_a_job_was_moved_is_said_in_words(command: Command, make: Any) -> None:
    job = make()
    assert command("jobs", "move", job, "--priority", 1).stdout == f"job {job} is with priority 1\n"
    moved = command("jobs", "move", job, "--priority", 2, "--queue", "other")
    assert moved.stdout == f"job {job} is in queue 'other' with priority 2\n"


def test_a_question_that_nobody_can_answer_names_the_option(command: Command, make: Any) -> None:
    job = make("failed")
    asked = command("jobs", "retry", "state:failed", stdin="")
    assert asked.exit_code == 1
    assert "1 job matches state:failed:\n" in asked.stderr
    assert "nothing was changed; pass --yes to do it without asking" in asked.stderr
    refused = command("jobs", "retry", "state:failed", stdin="n\n")
    assert (refused.exit_code, "--yes" in refused.stderr) == (1, False)
    assert json.loads(command("jobs", "show", job, "--json").stdout)["state"] == "failed"


def test_a_job_that_does_not_exist_has_no_state_for_any_subcommand(command: Command) -> None:
    for path in (["jobs", "show"], ["jobs", "logs"], ["jobs", "stack"], ["why"], ["jobs", "retry"], ["jobs", "cancel"]):
        done = command(*path, 999_999)
        assert done.exit_code == 1
        assert "job 999999 not found" in done.stderr, path


def test_a_command_that_is_misspelt_is_suggested(command: Command) -> None:
    for words, name in ((["job", "list"], "jobs"), (["jobs", "lst"], "list"), (["jobs", "log", "1"], "logs")):
        done = command(*words)
        assert done.exit_code == 2
        assert f"did you mean {name!r}?" in done.stderr, words


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["age:"], "'age:>1h'"), (["-attempt:", "queue:mail"], "'attempt:>3'"), (["args.total:"], "args"),
        (["prio:"], "'prio:<3'"), (["queue:"], None), (["message:"], None), (["age:>"], None),
    ],
)  # fmt: skip
def test_what_a_shell_has_taken_for_a_redirection_is_explained(
    command: Command, words: list[str], hint: str | None
) -> None:
    """`jobs list age:>1h` without quotes passes `age:` and writes to a file: the error must not just repeat it."""
    done = command("jobs", "list", *words)
    assert done.exit_code == 2
    assert ("; for a shell, put it in quotes: " in done.stderr) == (hint is not None), done.stderr
    assert hint is None or hint in done.stderr
