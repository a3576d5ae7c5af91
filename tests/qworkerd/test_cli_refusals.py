"""What a command says, and how it ends, where the database refuses, and where there is nothing to show."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.database import Database
from tests.qworkerd.conftest import Command

EVERY = [
    ("queues",), ("workers",), ("cron",), ("jobs", "list"), ("jobs", "show", "1"), ("jobs", "retry", "1"),
    ("jobs", "cancel", "1"), ("jobs", "discard", "1"), ("jobs", "retry", "state:failed"),
]  # fmt: skip


@pytest.fixture
def stranger(database: Database) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    conn = database.connect()
    conn.execute("CREATE ROLE stranger LOGIN PASSWORD 'secret'")
    yield make_conninfo(database.dsn, user="stranger", password="secret")
    conn.execute("DROP ROLE stranger")


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_role_without_rights_is_reported_so_in_one_line(
    command: Command, stranger: str, words: tuple[str, ...]
) -> None:
    done = command(*words, env={"QWORKER_DSN": stranger})
    assert done.exit_code == 78
    assert done.stderr == (
        "qworker: permission denied for schema qworker: grant the role what it needs by `qworker db grant`, "
        "or use another one\n"
    )


@pytest.mark.parametrize("verb", ["retry", "cancel", "discard"])
def test_a_database_that_takes_no_writes_is_reported_and_is_worth_another_try(
    command: Command, database: Database, verb: str
) -> None:
    dsn = make_conninfo(database.dsn, options="-c default_transaction_read_only=on")
    done = command("jobs", verb, "1", env={"QWORKER_DSN": dsn})
    assert done.exit_code == 75
    assert done.stderr.startswith("qworker: the database is read-only (cannot execute ")
    assert "connect to the primary" in done.stderr


def test_an_error_of_the_server_comes_without_our_sql(command: Command, database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                     " $$ BEGIN RAISE 'not on Mondays' USING HINT = 'wait'; END $$")  # fmt: skip
        conn.execute("CREATE TRIGGER refuse BEFORE UPDATE ON qworker.job FOR EACH ROW EXECUTE FUNCTION refuse()")
        (job_id,) = conn.execute(
            "INSERT INTO qworker.job (state, task, queue, args, failed_at) VALUES ('failed', 't', 'q', '{}', now())"
            " RETURNING id"
        ).fetchone() or (0,)
        try:
            done = command("jobs", "retry", job_id)
            refused = command("jobs", "retry", "state:failed", "--yes")
        finally:
            conn.execute(sql.SQL("DROP FUNCTION refuse() CASCADE"))
    assert (done.exit_code, done.stderr) == (1, "qworker: not on Mondays; wait\n")
    assert refused.exit_code == 1
    assert f"0 jobs retried, 1 refused by the database (job {job_id}: not on Mondays)" in refused.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jobs list", "no jobs"),
        ("jobs list state:failed", "no matching jobs"),
        ("queues", "no queue has jobs, and no node serves one"),
        ("workers", "no node is registered"),
        ("cron", "no schedules"),
    ],
)
def test_an_empty_table_says_what_there_is_none_of(
    command: Command, database: Database, words: str, message: str
) -> None:
    done = command(*words.split())
    assert (done.exit_code, done.stderr) == (0, f"{message}\n")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["x", "0", "-1", "9223372036854775808"])
def test_what_cannot_be_the_id_of_a_job_is_wrong_usage(command: Command, database: Database, wrong: str) -> None:
    done = command("jobs", "show", "--", wrong)
    assert done.exit_code == 2
    assert f"{wrong!r} is not the id of a job" in done.stderr


@pytest.mark.parametrize("group", ["jobs", "db"])
def test_the_help_of_a_group_says_what_each_command_does_in_a_whole_sentence(command: Command, group: str) -> None:
    done = command(group, "--help")
    commands = done.stdout.partition("Commands:\n")[2].splitlines()
    assert len(commands) >= 4
    for line in commands:
        assert line.endswith(".")
        assert not line.endswith("...")
