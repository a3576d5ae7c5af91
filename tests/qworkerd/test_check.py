"""`qworker check`: settings and their origins, application, database, schema, and how long a stop takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from qworkerd.config.settings import field_specs
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.suppressing import suppressing


def report(command: Command, *words: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    done = command("check", "--json", *words, env=env)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (0 if found["ok"] else 78)
    return found


def test_all_is_well(command: Command, shop: Path, database: Database) -> None:
    found = report(command, "--app", "shop:app", "--queues", "default,emails")
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["database"]["name"] == "qworker_shared"
    assert found["database"]["schema"] == "qworker"
    assert int(found["database"]["version"].split(".")[0]) >= 14


def test_every_setting_is_shown_with_its_origin(command: Command, shop: Path) -> None:
    found = report(command, "--app", "shop:app", "--lease-timeout", 40, env={"MAX_CONCURRENT_JOBS": "3"})["settings"]
    assert set(found) == set(field_specs())
    assert found["lease_timeout"] == {"value": 40.0, "origin": "--lease-timeout"}
    assert found["processes"] == {"value": 3, "origin": "$MAX_CONCURRENT_JOBS"}
    assert found["app"] == {"value": "shop:app", "origin": "--app"}
    assert found["max_batch"] == {"value": 256, "origin": "default"}


def test_options_before_the_word_check_count_too(command: Command, shop: Path) -> None:
    done = command("--app", "shop:app", "--processes", 5, "check", "--json")
    assert json.loads(done.stdout)["settings"]["processes"] == {"value": 5, "origin": "--processes"}


def test_tasks_schedules_and_hooks_are_listed(command: Command, shop: Path) -> None:
    shop.write_text(
        shop.read_text().replace("@app.task(name=", "@app.cron('*/5 * * * *')\n@app.task(name=")
        + "\n@fail.on_failure\ndef alert(job, error): ...\n"
    )
    found = report(command, "--app", "shop:app", "--timeout", 60)
    assert found["tasks"]["shop.send"].items() >= {"queue": "emails", "timeout": 30.0, "on_failure": False}.items()
    assert found["tasks"]["shop.fail"].items() >= {"queue": "default", "timeout": 60.0, "on_failure": True}.items()
    assert found["schedules"]["report"] == {"task": "report", "expression": "*/5 * * * *", "timezone": "UTC"}
    text = command("check", "--app", "shop:app").stdout
    assert "shop.send" in text
    assert "*/5 * * * *" in text


@pytest.mark.parametrize(("drain", "needed"), [(25, 45), (120, 140)])
def test_it_prints_what_a_service_files_stop_timeout_must_be(
    command: Command, shop: Path, drain: int, needed: int
) -> None:
    text = command("check", "--app", "shop:app", "--shutdown-timeout", drain).stdout
    for line in (
        f"TimeoutStopSec={needed}", f"stopwaitsecs={needed}", f"terminationGracePeriodSeconds: {needed}",
        f"docker stop -t {needed}",
    ):  # fmt: skip
        assert line in text


def test_the_password_is_not_shown(command: Command, shop: Path, database: Database) -> None:
    password = database.dsn.split("password=")[1].split()[0]
    for words in ((), ("--json",)):
        done = command("check", "--app", "shop:app", *words)
        assert done.exit_code == 0
        assert password not in done.output
        assert "***" in done.output


def test_problems_of_one_part_do_not_hide_those_of_another(command: Command) -> None:
    found = report(command, "--app", "missing:app", env={"QWORKER_DSN": "postgresql://u:hunter2@127.0.0.1:1/x"})
    assert found["ok"] is False
    assert [problem.split(":")[0] for problem in found["problems"]] == [
        "app 'missing", "no connection to the database user=u password=*** host=127.0.0.1 port=1 dbname=x"]  # fmt: skip
    assert "hunter2" not in json.dumps(found)


def test_an_application_that_does_not_import_is_the_only_problem_when_it_may_name_the_database(
    command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a DSN, libpq's defaults would be tried: that no server is there is not what is wrong."""
    monkeypatch.delenv("QWORKER_DSN")
    shop.write_text("from qworker import App\napp = App('postgresql://u@h/db')\n\nundefined_name\n")
    found = report(command, "--app", "shop:app")
    (problem,) = found["problems"]
    assert f"({shop}:4)" in problem
    assert "the database was not checked, because the application may name it" in found["warnings"]


def test_a_schema_that_the_application_may_name_is_not_missed(
    command: Command, shop: Path, empty_database: Database
) -> None:
    shop.write_text("from qworker import App\napp = App(schema='jobs')\nundefined_name\n")
    found = report(command, "--app", "shop:app", env={"QWORKER_DSN": empty_database.dsn})
    (problem,) = found["problems"]
    assert "undefined_name" in problem
    assert found["database"]["name"]


def test_the_line_that_declares_a_wrong_schedule_is_named(command: Command, shop: Path) -> None:
    shop.write_text(shop.read_text() + "\n@app.cron('*/90 * * * *')\n@app.task()\ndef tidy() -> None: ...\n")
    (problem,) = report(command, "--app", "shop:app")["problems"]
    line = shop.read_text().splitlines().index("@app.cron('*/90 * * * *')") + 1
    assert f"({shop}:{line})" in problem
    assert "the step of '*/90' exceeds its field" in problem


def test_bad_settings_are_all_told(command: Command) -> None:
    done = command("check", "--json", "--processes", 0, "--lease-timeout", "long")
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert [problem.split(" ")[0] for problem in found["problems"]] == ["processes", "lease_timeout"]


def test_no_application_is_a_problem(command: Command) -> None:
    (problem,) = report(command)["problems"]
    assert "--app package.module:attribute" in problem


def test_a_missing_schema_is_a_problem_that_names_the_command(
    command: Command, shop: Path, empty_database: Database
) -> None:
    (problem,) = report(command, "--app", "shop:app", env={"QWORKER_DSN": empty_database.dsn})["problems"]
    assert "run `qworker db migrate`" in problem


def test_misspelt_variables_and_queues_nobody_works_off_are_warned_of(command: Command, shop: Path) -> None:
    found = report(command, "--app", "shop:app", env={"QWORKER_PROCESES": "8"})
    assert "$QWORKER_PROCESES is set, but is not a setting; did you mean $QWORKER_PROCESSES?" in found["warnings"]
    assert any("shop.send enqueues into 'emails'" in warning for warning in found["warnings"])


def test_an_application_without_tasks_is_warned_of(command: Command, folder: Path) -> None:
    (folder / "bare.py").write_text("from qworker import App\napp = App()\n")
    assert any("app 'bare:app' has no tasks" in warning for warning in report(command, "--app", "bare:app")["warnings"])


def test_threads_that_an_import_starts_are_named(command: Command, shop: Path, database: Database) -> None:
    shop.write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='metrics-flusher', daemon=True).start()\n"
        + shop.read_text()
    )
    done = subprocess.run(
        [sys.executable, "-m", "qworkerd", "check", "--app", "shop:app", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (warning,) = (w for w in json.loads(done.stdout)["warnings"] if "threads" in w)
    assert "metrics-flusher" in warning


def test_a_read_only_role_or_database_is_a_problem_with_its_remedy(
    command: Command, shop: Path, database: Database
) -> None:
    found = report(
        command,
        "--app",
        "shop:app",
        env={"QWORKER_DSN": f"{database.dsn} options='-c default_transaction_read_only=on'"},
    )
    (problem,) = found["problems"]
    assert "accepts no writes" in problem
    assert "RESET default_transaction_read_only" in problem


def test_a_role_without_a_workers_rights_is_a_problem_and_no_node_starts(
    command: Command, shop: Path, database: Database
) -> None:
    conn = database.connect()
    conn.execute("CREATE ROLE lacking LOGIN PASSWORD 'pw'")
    try:
        conn.execute("GRANT USAGE ON SCHEMA qworker TO lacking")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA qworker TO lacking")
        env = {"QWORKER_DSN": make_conninfo(database.dsn, user="lacking", password="pw")}
        (problem,) = report(command, "--app", "shop:app", env=env)["problems"]
        assert "role 'lacking' lacks privileges in schema 'qworker'" in problem
        assert "UPDATE on job," in problem
        assert command("--app", "shop:app", "--burst", env=env).exit_code == 78
    finally:
        conn.execute("DROP OWNED BY lacking")
        conn.execute("DROP ROLE lacking")


def test_a_sequence_that_is_behind_is_a_problem_with_a_remedy(command: Command, shop: Path, database: Database) -> None:
    conn = database.connect()
    conn.execute("INSERT INTO qworker.job (task) SELECT 'noop' FROM generate_series(1, 3)")
    conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
    found = report(command, "--app", "shop:app", "--queues", "default,emails")
    (problem,) = found["problems"]
    assert problem.startswith("the sequence job_id_seq is at 0, but ")
    assert "run `qworker db repair`" in problem
    assert command("db", "repair").exit_code == 0
    assert report(command, "--app", "shop:app", "--queues", "default,emails")["ok"]


@pytest.mark.parametrize(
    ("event", "row", "named"), [("DELETE", "NULL", True), ("DELETE", "NEW", True), ("DELETE", "OLD", False),
                                ("UPDATE", "NULL", True), ("UPDATE", "NEW", False)]
)  # fmt: skip
def test_a_trigger_that_may_suppress_writes_is_named(
    command: Command, shop: Path, database: Database, event: str, row: str, named: bool
) -> None:
    with suppressing(database.connect(), event, "true", row=row):
        found = report(command, "--app", "shop:app")
    warnings = [text for text in found["warnings"] if "trigger 'suppress' on qworker.job" in text]
    assert bool(warnings) is named
    assert not [text for text in report(command, "--app", "shop:app")["warnings"] if "trigger 'suppress'" in text]


def test_a_trigger_on_the_history_is_named_once_with_its_function(
    command: Command, shop: Path, database: Database
) -> None:
    """PostgreSQL 15 and later list the triggers of its partitions as well."""
    with suppressing(database.connect(), "INSERT", table="job_history"):
        warnings = [text for text in report(command, "--app", "shop:app")["warnings"] if "trigger 'suppress'" in text]
    (warning,) = warnings
    assert "on qworker.job_history " in warning
    assert "public.suppress() contains RETURN NULL" in warning or " suppress() contains RETURN NULL" in warning


def test_a_rule_that_replaces_writes_is_named(command: Command, shop: Path, database: Database) -> None:
    conn = database.connect()
    conn.execute("CREATE RULE keep AS ON DELETE TO qworker.job WHERE OLD.task = 'audit' DO INSTEAD NOTHING")
    try:
        warnings = report(command, "--app", "shop:app")["warnings"]
    finally:
        conn.execute("DROP RULE keep ON qworker.job")
    assert [text for text in warnings if "rule 'keep' on qworker.job" in text]
