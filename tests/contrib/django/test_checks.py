"""System checks of Django: what would keep jobs from being stored or run is said before it does."""

from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from qworker.contrib.django import discovery
from qworker.contrib.django.api import task_backends
from tests.contrib.django.settings import BACKEND, TASKS
from tests.database import Database

SERVED = {"QUEUES": ["default", "mail"]}


def found(**settings: Any) -> dict[str, str]:
    """Return the messages of the checks by id, with these settings."""
    with override_settings(**settings):
        messages = checks.run_checks(tags=["qworker"])
        if "TASKS" in settings:
            for alias in settings["TASKS"]:
                messages += task_backends[alias].check()
    return {message.id: f"{message.msg} {message.hint or ''}" for message in messages}


def test_a_project_that_works_is_not_complained_about(site: Path) -> None:
    assert found(QWORKER={"PROCESSES": 2}) == {}
    assert found(TASKS={}, QWORKER=SERVED) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["processes"], "QWORKER is ['processes'] (list). Write a dict, as in QWORKER = {'QUEUES': ['default']}."),
        (None, "QWORKER is None (NoneType). Write a dict"),
        ({"queues": []}, "QWORKER has the key 'queues'. Its keys are in upper case: write 'QUEUES'."),
        ({"Database": "x"}, "QWORKER has the key 'Database'. Its keys are in upper case: write 'DATABASE'."),
        ({"PROCESES": 2}, "QWORKER has the key 'PROCESES'. Did you mean 'PROCESSES'?"),
        ({"databse": 2}, "QWORKER has the key 'databse'. Did you mean 'DATABASE'?"),
        ({"XYZZY": 2}, "QWORKER has the key 'XYZZY'. Expected one of ALLOW_OPEN_CONNECTIONS, BOOT_TIMEOUT"),
        ({1: 2}, "QWORKER has the key 1. Expected one of"),
        ({"DSN": "postgres:///x"}, "QWORKER has the key 'DSN'. Set QWORKER['DATABASE'] to an alias in DATABASES"),
        ({"DIRECT_DSN": 7}, "QWORKER['DIRECT_DSN'] is ***. It must be a string that is not empty."),
        ({"PROCESSES": "many"}, "QWORKER['PROCESSES'] is 'many' (str). It must be a whole number from 1 to 1024."),
        ({"QUEUES": 5}, "QWORKER['QUEUES'] is 5 (int). It must be names separated by commas, or a list of names."),
        ({"DATABASE": ["a"]}, "QWORKER['DATABASE'] is ['a'] (list). Write an alias in DATABASES, as in 'default'."),
        ({"SCHEMA": "Jobs"}, "QWORKER['SCHEMA'] is 'Jobs' (str). Write the name of a schema"),
        (
            {"MODULES": "shop.more"},
            "QWORKER['MODULES'] is 'shop.more' (str). Write a list of names of modules, as in ['",
        ),
        ({"MODULES": [len]}, "(list). Write a list of names of modules, as in ['shop.reports']"),
    ],
)
def test_a_wrong_entry_is_shown_with_the_right_one(site: Path, value: Any, message: str) -> None:
    said = found(QWORKER=value)
    assert message in said["qworker.E001"]
    assert said.keys() == {"qworker.E001"}, "what follows from it is not reported as well"


def test_each_wrong_entry_is_reported(site: Path) -> None:
    with override_settings(QWORKER={"processes": 2, "QUEUES": 5, "SCHEMA": "A B"}):
        assert [message.id for message in checks.run_checks(tags=["qworker"])] == ["qworker.E001"] * 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"OPTIONS": {"databse": "x"}}, "['OPTIONS'] has the key 'databse'. Did you mean 'database'?"),
        ({"OPTIONS": {"TIMEOUT": 3}}, "['OPTIONS'] has the key 'TIMEOUT'. Did you mean 'timeout'?"),
        (
            {"OPTIONS": {"timeout": "soon"}},
            "['OPTIONS']['timeout'] is 'soon' (str). Timeout takes seconds or a timedelta, not 'soon'.",
        ),
        ({"OPTIONS": {"max_attempts": 0}}, "['OPTIONS']['max_attempts'] is 0 (int)."),
        ({"OPTIONS": {"backoff": "1"}}, "['OPTIONS']['backoff'] is '1' (str)."),
        ({"OPTIONS": {"database": ["a"]}}, "['OPTIONS']['database'] is ['a'] (list). Write an alias in DATABASES"),
        ({"OPTIONS": {"schema": "a b"}}, "['OPTIONS']['schema'] is 'a b' (str). Write the name of a schema"),
        ({"OPTIONS": {"queue_prefix": None}}, "['OPTIONS']['queue_prefix'] is None (NoneType). Write a string"),
        ({"OPTIONS": ["timeout"]}, "['OPTIONS'] is ['timeout'] (list). Write a dict"),
        ({"QUEUES": "mail"}, "['QUEUES'] is 'mail' (str). Write a list of names"),
        ({"timeout": 3}, " has the key 'timeout'. Write it into its OPTIONS, as 'timeout'."),
    ],
)
@pytest.mark.parametrize("alias", ["default", "reports"])
def test_a_wrong_entry_of_a_backend(site: Path, alias: str, entry: Any, message: str) -> None:
    assert f"TASKS[{alias!r}]{message}" in found(TASKS={alias: {"BACKEND": BACKEND, **entry}})["qworker.E001"]


@pytest.mark.parametrize("where", ["QWORKER", "TASKS"])
def test_a_database_that_does_not_exist(site: Path, where: str) -> None:
    if where == "QWORKER":
        said = found(TASKS={}, QWORKER={"DATABASE": "jobs"})["qworker.E002"]
        assert "Set QWORKER['DATABASE'] to one of default" in said
    else:
        said = found(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": {"database": "jobs"}}})["qworker.E002"]
        assert "Set OPTIONS['database'] to one of default" in said
    assert f"{where}" in said
    assert "the database 'jobs', which DATABASES does not have" in said


def test_a_database_that_is_not_postgresql(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {},
    }
    monkeypatch.setitem(connections.settings, "lite", lite)
    said = found(TASKS={}, QWORKER={"DATABASE": "lite", **SERVED})
    assert "'lite', which is sqlite. Jobs need PostgreSQL" in said["qworker.E003"]
    del connections["lite"]


def test_two_backends_that_would_run_each_others_tasks(site: Path) -> None:
    shared = {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"queue_prefix": ""}}
    said = found(TASKS={**TASKS, "mail": shared})["qworker.E004"]
    assert "TASKS['default'] and TASKS['mail'] share queues" in said
    other = {**shared, "OPTIONS": {"queue_prefix": "", "schema": "other"}}
    assert "qworker.E004" not in found(TASKS={**TASKS, "mail": other})


def test_a_backend_without_the_app(site: Path) -> None:
    with override_settings(INSTALLED_APPS=["tests.contrib.django.shop"]):
        said = {message.id: message.hint for message in task_backends["default"].check()}
    assert "'qworker.contrib.django' to INSTALLED_APPS" in said["qworker.W001"]


def test_a_backend_that_cannot_be_imported_breaks_nothing_of_ours(site: Path) -> None:
    with override_settings(TASKS={**TASKS, "gone": {"BACKEND": "does.not.exist"}}):
        assert checks.run_checks(tags=["qworker"]) == []
        call_command("flush", verbosity=0, interactive=False)


def test_an_app_before_ours_that_replaces_flush(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.contrib.django.checks.get_commands", lambda: {"flush": "theirs"})
    assert "List 'qworker.contrib.django' before 'theirs'" in found()["qworker.W004"]


def test_modules_that_cannot_be_imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(QWORKER={"MODULES": ["tests.contrib.django.gone"]}):
        said = {message.id: message.msg for message in checks.run_checks(tags=["qworker"])}
    assert "ModuleNotFoundError: No module named 'tests.contrib.django.gone'" in said["qworker.W002"]
    assert "tests.contrib.django.gone" not in discovery._done


def test_a_task_whose_queue_no_node_serves(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app: Any = task_backends["default"].app
    app.task(name="mailing", queue="mail")(lambda: None)
    try:
        said = found()["qworker.W005"]
        assert "Task mailing uses the queue 'mail'" in said
        assert "Add it to QWORKER['QUEUES']" in said
        assert "qworker.W005" not in found(QWORKER=SERVED)
        assert "qworker.W005" not in found(TASKS={**TASKS, "default": {"BACKEND": BACKEND, **SERVED}})
        monkeypatch.setenv("QWORKER_QUEUES", "default, mail")
        assert "qworker.W005" not in found()
    finally:
        del app.tasks["mailing"]


def test_tasks_of_django_whose_queue_no_node_serves(site: Path) -> None:
    assert "tests.contrib.django.shop.tasks.echo" not in found().get("qworker.W005", "")
    said = found(QWORKER={"QUEUES": ["mail"]})["qworker.W005"]
    assert "uses the queue 'default'" in said


def test_tables_that_are_missing_or_older_than_the_code(site: Path, database: Database, capsys: Any) -> None:
    def said() -> list[str]:
        return [
            f"{message.msg} {message.hint}" for message in checks.run_checks(tags=["database"], databases=["default"])
        ]

    assert said() == []
    with database.connect() as conn:
        conn.execute("DROP SCHEMA qworker CASCADE")
    (message,) = said()
    assert "schema 'qworker' in database" in message
    assert "does not exist" in message
    assert "manage.py migrate`" in message
    call_command("migrate", verbosity=0)
    assert said() == []
