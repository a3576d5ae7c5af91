"""`qworker db`: the schema, with an application or without."""

import json
from pathlib import Path

import psycopg
import pytest

from qworker import migrations
from tests.database import Database
from tests.qworkerd.conftest import Command


def test_migrate_makes_the_schema_and_says_what_it_did(command: Command, empty_database: Database) -> None:
    env = {"QWORKER_DSN": empty_database.dsn}
    first = command("db", "migrate", env=env)
    assert first.exit_code == 0
    assert first.stdout.startswith(f"applied {migrations.shipped()[0]}\n")
    migrations.check(empty_database.connect())
    assert "applied" not in command("db", "migrate", env=env).stdout


def test_the_schema_can_have_another_name(command: Command, empty_database: Database) -> None:
    env = {"QWORKER_DSN": empty_database.dsn}
    assert command("db", "migrate", "--schema", "jobs_of_mine", env=env).exit_code == 0
    migrations.check(empty_database.connect(), "jobs_of_mine")
    missing = command("db", "status", env=env)
    assert missing.exit_code == 78
    assert "run `qworker db migrate`" in missing.stdout


def test_an_application_says_itself_which_schema_it_means(
    command: Command, shop: Path, empty_database: Database
) -> None:
    shop.write_text(shop.read_text().replace("App()", "App(schema='shop')"))
    env = {"QWORKER_DSN": empty_database.dsn, "QWORKER_APP": "shop:app"}
    assert command("db", "migrate", env=env).exit_code == 0
    migrations.check(empty_database.connect(), "shop")
    contradiction = command("db", "migrate", "--schema", "other", env=env)
    assert contradiction.exit_code == 78
    assert "schema = 'other' from --schema, but app 'shop:app' enqueues into 'shop'" in contradiction.stderr


def test_status_lists_migrations_and_is_the_exit_status(command: Command) -> None:
    good = command("db", "status")
    assert good.exit_code == 0
    assert str(migrations.shipped()[0]) in good.stdout
    assert "is compatible with this code" in good.stdout


def test_status_for_programs(command: Command, empty_database: Database) -> None:
    found = json.loads(command("db", "status", "--json", env={"QWORKER_DSN": empty_database.dsn}).stdout)
    assert found["compatible"] is False
    assert "qworker db migrate" in found["problem"]
    assert [m["applied_at"] for m in found["migrations"]] == [None] * len(migrations.shipped())


def test_the_script_does_what_migrate_does(command: Command, empty_database: Database) -> None:
    script = command("db", "sql", env={"QWORKER_DSN": "host=nowhere.invalid"})
    assert script.exit_code == 0
    conn = empty_database.connect()
    conn.execute(script.stdout)
    migrations.check(conn)


def test_who_may_not_create_a_schema_is_reported_what_to_do(command: Command, empty_database: Database) -> None:
    conn = empty_database.connect()
    conn.execute("DROP ROLE IF EXISTS cli_poor")
    conn.execute("CREATE ROLE cli_poor LOGIN PASSWORD 'poor-password'")
    dsn = psycopg.conninfo.make_conninfo(empty_database.dsn, user="cli_poor", password="poor-password")
    refused = command("db", "migrate", env={"QWORKER_DSN": dsn})
    conn.execute("DROP ROLE cli_poor")
    assert refused.exit_code == 78
    assert "role 'cli_poor' may not create schema 'qworker'" in refused.stderr
    assert "poor-password" not in refused.output


@pytest.mark.parametrize(
    ("dsn", "code", "message"),
    [
        (
            "postgresql://shop:hunter2@127.0.0.1:1/shop",
            75,
            "no connection to the database user=shop password=*** host=127",
        ),
        ("host=127.0.0.1 port=1 password='hunter2 x'", 75, "no connection to the database password=*** host=127.0.0.1"),
        ("postgresql://shop:hunter2@127.0.0.1:1/shop?colour=red", 78, "libpq has no option 'colour'"),
    ],
)
def test_a_database_that_is_not_there_is_one_line_without_the_password(
    command: Command, dsn: str, code: int, message: str
) -> None:
    refused = command("db", "status", env={"QWORKER_DSN": dsn})
    assert refused.exit_code == code
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "hunter2" not in refused.output


def test_repair_moves_sequences_forward_and_says_which(command: Command, database: Database) -> None:
    conn = database.connect()
    conn.execute("INSERT INTO qworker.job (task) SELECT 'noop' FROM generate_series(1, 3)")
    ((highest, position),) = conn.execute("SELECT max(id), max(seq) FROM qworker.job").fetchall()
    conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
    conn.execute("ALTER SEQUENCE qworker.job_seq RESTART")
    first = command("db", "repair")
    assert first.exit_code == 0
    assert f"job_id_seq is at 0, but {highest} is in use: advanced\n" in first.stdout
    assert f"job_seq is at 0, but {position} is in use: advanced\n" in first.stdout
    ((job,),) = conn.execute("INSERT INTO qworker.job (task) VALUES ('noop') RETURNING id").fetchall()
    assert job > highest
    second = command("db", "repair")
    assert (second.exit_code, second.stdout) == (
        0, "the sequences of schema 'qworker' are not behind any number in use\n"
    )  # fmt: skip


def test_repair_works_on_the_schema_that_is_named(command: Command, empty_database: Database) -> None:
    env = {"QWORKER_DSN": empty_database.dsn}
    assert command("db", "migrate", "--schema", "mine", env=env).exit_code == 0
    conn = empty_database.connect()
    conn.execute("INSERT INTO mine.job (task) SELECT 'noop' FROM generate_series(1, 3)")
    conn.execute("ALTER SEQUENCE mine.job_id_seq RESTART")
    done = command("db", "repair", "--schema", "mine", env=env)
    assert "job_id_seq is at 0, but 3 is in use" in done.stdout
    assert "the sequences of schema 'mine'" in done.stdout
    conn.execute("INSERT INTO mine.job (task) VALUES ('noop')")


def test_repair_without_a_schema_says_what_to_run(command: Command, empty_database: Database) -> None:
    done = command("db", "repair", env={"QWORKER_DSN": empty_database.dsn})
    assert done.exit_code == 78
    assert "qworker db migrate" in done.stderr


def test_a_grant_says_what_was_done_or_prints_what_to_do(command: Command, database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("CREATE ROLE qworker_granted LOGIN")
    try:
        words = ("db", "grant", "--role", "qworker_granted", "--as", "producer")
        printed = command(*words, "--dry-run").stdout.splitlines()
        assert printed == [
            'GRANT USAGE ON SCHEMA "qworker" TO "qworker_granted";',
            'GRANT EXECUTE ON FUNCTION "qworker"."enqueue" TO "qworker_granted";',
            'GRANT EXECUTE ON FUNCTION "qworker"."enqueue_jobs" TO "qworker_granted";',
        ]
        assert may_enqueue(database) is False
        done = command(*words, "--as", "viewer")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("role 'qworker_granted' has the privileges of a producer and a viewer in schema ")
        assert may_enqueue(database) is True
        assert command(*words, "--revoke", "--dry-run").stdout.startswith('REVOKE USAGE ON SCHEMA "qworker" FROM ')
        assert "no longer has the privileges of a producer" in command(*words, "--revoke").stdout
        assert may_enqueue(database) is False
    finally:
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            conn.execute("DROP OWNED BY qworker_granted")
            conn.execute("DROP ROLE qworker_granted")


def may_enqueue(database: Database) -> bool:
    with psycopg.connect(database.dsn) as conn:
        query = "SELECT has_function_privilege('qworker_granted', 'qworker.enqueue'::regproc, 'EXECUTE')"
        return bool(conn.execute(query).fetchall()[0][0])


def test_a_grant_names_what_is_wrong(command: Command) -> None:
    missing = command("db", "grant", "--role", "nobody-here", "--as", "viewer")
    assert missing.exit_code == 78
    assert "role 'nobody-here' does not exist in this server: create it first" in missing.stderr
    unknown = command("db", "grant", "--role", "postgres", "--as", "operator")
    assert unknown.exit_code == 2
    assert "'operator' is not one of 'producer', 'worker', 'viewer', 'admin'" in unknown.stderr


def test_maintain_reports_each_step(command: Command, database: Database) -> None:
    done = command("db", "maintain")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["STEP", "DONE", "PROBLEM"]
    assert "tables analyzed: job_history" in done.stdout
    steps = json.loads(command("db", "maintain", "--json").stdout)
    assert steps[-1] == {"name": "tables analyzed: job_history", "done": 1, "problem": None}


def test_what_changes_the_schema_prints_json_as_well(command: Command, database: Database) -> None:
    conn = database.connect()
    named = {"database": conn.info.dbname, "schema": "qworker"}
    assert json.loads(command("db", "migrate", "--json").stdout) == {**named, "applied": []}
    assert json.loads(command("db", "repair", "--json").stdout) == {"schema": "qworker", "advanced": []}
    conn.execute("INSERT INTO qworker.job (id, queue, task) VALUES (5000000, 'mail', 'send')")
    (advanced,) = json.loads(command("db", "repair", "--json").stdout)["advanced"]
    assert (advanced["sequence"], advanced["highest"]) == ("job_id_seq", 5_000_000)
    conn.execute("CREATE ROLE qworker_json")
    try:
        words = ("db", "grant", "--role", "qworker_json", "--as", "admin")
        granted = {**named, "role": "qworker_json", "kinds": ["admin"], "revoked": False}
        assert json.loads(command(*words, "--json").stdout) == granted
        assert "has the privileges of an admin in" in command(*words).stdout
        assert json.loads(command(*words, "--revoke", "--json").stdout) == granted | {"revoked": True}
        assert command(*words, "--dry-run", "--json").exit_code == 2
    finally:
        conn.execute("DROP OWNED BY qworker_json")
        conn.execute("DROP ROLE qworker_json")
