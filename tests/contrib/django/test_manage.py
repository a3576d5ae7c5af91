"""`manage.py qworker` in a project of its own, as its owner would type it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from qworker.contrib.django.database import dsn
from tests.contrib.django.shop import tasks
from tests.database import Database
from tests.waiting import until

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
execute_from_command_line(sys.argv)
"""
SETTINGS = """
import os
from tests.contrib.django.settings import database

SECRET_KEY = "of a test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "qworker.contrib.django", "shop"]
DATABASES = {"default": database(os.environ["SHOP_DSN"], OPTIONS={"connect_timeout": 7})}
QWORKER = {"PROCESSES": 1, "QUEUES": ["default", "mail"]}
"""
JOBS = """
from pathlib import Path
from qworker.contrib.django import app

@app.task(queue="mail")
def greet(name):
    Path("greeted").write_text(f"Hello, {name}")
"""


class Site:
    """A folder with a project."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        (folder / "shop").mkdir()
        for name, text in (("manage.py", MANAGE), ("shop/settings.py", SETTINGS), ("shop/jobs.py", JOBS)):
            (folder / name).write_text(text)
        (folder / "shop" / "__init__.py").touch()
        root = Path(__file__).parents[3]
        self.environment = os.environ | {"SHOP_DSN": dsn, "PYTHONPATH": str(root)}
        for name in ("QWORKER_DSN", "DATABASE_URL", "DJANGO_SETTINGS_MODULE"):
            self.environment.pop(name, None)

    def start(self, *words: str, output: Any = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        """Start `manage.py` with these words."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *words], cwd=self.folder, env=self.environment | environment, text=True,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def manage(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run `manage.py` with these words; return what it says."""
        process = self.start(*words, **environment)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == code, said
        return said

    def enqueue(self, name: str) -> None:
        self.manage("qworker", "enqueue", "shop.jobs.greet", json.dumps({"name": name}))

    @property
    def greeted(self) -> str:
        path = self.folder / "greeted"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def shop(tmp_path: Path, database: Database) -> Site:
    return Site(tmp_path, database.dsn)


def test_from_an_empty_database_to_a_job_that_has_run(tmp_path: Path, empty_database: Database) -> None:
    shop = Site(tmp_path, empty_database.dsn)
    assert "run `manage.py migrate`" in shop.manage("check", "--database", "default").replace("\n", " ")
    assert "run `manage.py migrate`" in shop.manage("qworker", "enqueue", "shop.jobs.greet", '{"name": 1}', code=78)
    assert "W003" in shop.manage("migrate", "contenttypes", code=0).replace("\n", " "), "this mends nothing"
    said = shop.manage("migrate")
    assert "Applying qworker.0001_initial... OK" in said
    assert "W003" not in said, "the command mends it itself"
    shop.enqueue("Ada")
    shop.manage("qworker", "drain")
    assert shop.greeted == "Hello, Ada"
    (job,) = json.loads(shop.manage("qworker", "jobs", "list", "--json"))
    assert (job["task"], job["queue"], job["state"]) == ("shop.jobs.greet", "mail", "completed")
    for command in ("queues", "workers", "cron", "tasks list"):
        shop.manage("qworker", *command.split())


def test_options_come_before_variables_and_these_before_the_settings(shop: Site) -> None:
    def processes(*options: str, **environment: str) -> list[Any]:
        report = json.loads(shop.manage("qworker", "check", "--json", *options, code=0, **environment))
        assert report["database"]["schema"] == "qworker"
        return list(report["settings"]["processes"].values())

    (shop.folder / "pyproject.toml").write_text("[tool.qworker]\nprocesses = 5\nlease-timeout = 17\n")
    origin = "QWORKER in Django's settings"
    assert processes() == [1, origin]
    assert processes(QWORKER_PROCESSES="2") == [2, "$QWORKER_PROCESSES"]
    assert processes(MAX_CONCURRENT_JOBS="3") == [3, "$MAX_CONCURRENT_JOBS"]
    assert processes("--processes", "4", QWORKER_PROCESSES="2") == [4, "--processes"]
    report = json.loads(shop.manage("qworker", "check", "--json"))
    assert report["settings"]["queues"] == {"value": ["default", "mail"], "origin": origin}
    assert report["settings"]["lease_timeout"]["value"] == 17
    assert report["warnings"] == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{'PROCESES': 2}", "'proceses' in QWORKER in Django's settings is not a setting; did you mean processes?"),
        ("{'PROCESSES': 0}", "processes = 0 from QWORKER in Django's settings: must be a whole number from 1"),
        ("{'DSN': 'x'}", "'dsn' in QWORKER in Django's settings: the application names its database itself"),
        ("{'queues': 'x'}", "QWORKER in Django's settings has the key 'queues': its keys are in upper case"),
        ("['default']", "QWORKER is ['default'] (list). Write a dict"),
    ],
)
def test_a_wrong_setting_is_named(shop: Site, entry: str, said: str) -> None:
    (shop.folder / "shop" / "settings.py").write_text(f"{SETTINGS}\nQWORKER = {entry}\n")
    assert said in shop.manage("qworker", "check", code=78)
    assert said in shop.manage("qworker", "run", "--skip-checks", code=78)
    for command, code in (("check", 1), ("qworker run", 78)):
        found = shop.manage(*command.split(), code=code)
        assert "(qworker.E001) QWORKER" in found
        assert "Traceback" not in found


def test_check_shows_the_database_that_is_used(shop: Site) -> None:
    report = json.loads(shop.manage("qworker", "check", "--json", DATABASE_URL="postgresql://other/unused"))
    shown = report["settings"]["dsn"]
    assert shown["origin"] == "DATABASES['default'] in Django's settings"
    assert report["database"]["name"] in shown["value"]
    assert "unused" not in json.dumps(report)


def test_messages_name_the_commands_of_the_project(shop: Site) -> None:
    assert "as shown by `manage.py qworker jobs list`" in shop.manage("qworker", "jobs", "show", "x", code=2)
    shop.manage("qworker", "queues", "pause", "mail")
    shop.enqueue("Ada")
    assert "resume it with `manage.py qworker queues resume mail`" in shop.manage("qworker", "check")


def test_a_node_does_not_start_if_a_system_check_fails(shop: Site) -> None:
    (shop.folder / "shop" / "settings.py").write_text(f"{SETTINGS}\nQWORKER['DATABASE'] = 'jobs'\n")
    assert "(qworker.E002) QWORKER stores jobs in the database 'jobs'" in shop.manage("qworker", "run", code=78)


def test_words_of_no_command_are_an_error_with_a_usage(shop: Site) -> None:
    assert "No such command 'runn'" in shop.manage("qworker", "runn", code=2)
    assert "Usage: manage.py qworker [OPTIONS] COMMAND" in shop.manage("help", "qworker")
    assert "QWORKER_PROCESSES" in shop.manage("qworker", "--help", "--settings", "shop.settings")


@pytest.fixture
def reloading(shop: Site) -> Iterator[subprocess.Popen[str]]:
    """A node that is started again when code changes; it writes to the file `log`."""
    with (shop.folder / "log").open("w") as log:
        process = shop.start("qworker", "run", "--reload", output=log)
        yield process
        process.terminate()
        process.wait(30)


def test_a_node_is_started_again_when_code_changes(shop: Site, reloading: subprocess.Popen[str]) -> None:
    jobs, new, log = shop.folder / "shop" / "jobs.py", shop.folder / "shop" / "new.py", shop.folder / "log"
    shop.enqueue("Ada")
    until(lambda: shop.greeted == "Hello, Ada", what="the first job")
    jobs.write_text(f"import shop.new\n{JOBS.replace('Hello', 'Bye')}")
    until(lambda: "exited with status 78" in log.read_text(), what="the end of the node with broken code")
    new.touch()  # a file that no process has imported
    until(lambda: log.read_text().count('"event": "supervisor.ready"') == 2, what="the node with mended code")
    shop.enqueue("Bob")
    until(lambda: shop.greeted == "Bye, Bob", what="the job of the new code")
    reloading.send_signal(signal.SIGTERM)
    assert reloading.wait(30) == 0
    said = log.read_text()
    assert said.count("changed: restarting the node") == 2
    assert said.count('"event": "supervisor.stopped"') == 2, "each node has stopped in order"


def test_call_command_runs_them_in_this_process_and_transaction(site: Path, capsys: Any) -> None:
    result = tasks.echo.enqueue("x")
    call_command("qworker", "jobs", "show", result.id, "--json")
    assert json.loads(capsys.readouterr().out)["id"] == int(result.id)
    with pytest.raises(SystemExit):
        call_command("qworker", "jobs", "show", "999999", stderr=StringIO())


def test_the_connection_string_has_the_options_of_the_database(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"sslmode": "prefer", "connect_timeout": 7, "application_name": "shop", "isolation_level": 2}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    found = conninfo_to_dict(dsn("default"))
    assert (found["sslmode"], found["connect_timeout"], found["application_name"]) == ("prefer", "7", "shop")
    assert "isolation_level" not in found
