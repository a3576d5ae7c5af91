"""A project whose jobs are in another database than its users and the log of the admin."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from qworkerd.embedded import EmbeddedPostgres
from tests.contrib.django.settings import database as entry
from tests.database import Database
from tests.project import Project

SETTINGS = """
import json
import os

from tests.contrib.django.settings import *

DATABASES = json.loads(os.environ["SHOP_DATABASES"])
INSTALLED_APPS = [name for name in INSTALLED_APPS if not name.startswith("tests")]
QWORKER = {"DATABASE": "jobs", "SCHEMA": "shop_jobs"}
TASKS = {"default": {"BACKEND": BACKEND}}
"""
SESSION = """
import django

django.setup()

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.test import Client

from qworker.contrib.django import app
from qworker.contrib.django.models import Job


@app.task(name="work")
def work():
    pass


job = work.enqueue()
"""
READ = """
print(Job.objects.get().id == job.id, Job.objects.db, Job.objects.using("jobs").get().state)
"""
BLOCK = """
with transaction.atomic(using="jobs"):
    work.enqueue()
    print(Job.objects.count(), Job.objects.all().cancel())
    transaction.set_rollback(True, using="jobs")
print(Job.objects.count(), Job.objects.get().state)
"""
ADMIN = """
browser = Client()
browser.force_login(User.objects.create_superuser("ada", "", "x"))
page = browser.get("/admin/qworker/job/").content.decode()
print(f'value="{job.id}"' in page)
response = browser.post("/admin/qworker/job/cancel/", {"ids": str(job.id)})
print(response.status_code, Job.objects.get().state, LogEntry.objects.get().object_id == str(job.id))
print(LogEntry.objects.db, connections["jobs"].settings_dict["NAME"] != connections["default"].settings_dict["NAME"])
"""


@pytest.fixture
def jobs_database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    yield database
    database.drop(postgres_server)


@pytest.fixture
def project(empty_database: Database, jobs_database: Database, tmp_path: Path) -> Iterator[Project]:
    databases = json.dumps({"default": entry(empty_database.dsn), "jobs": entry(jobs_database.dsn)})
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    with Project(
        tmp_path, empty_database.dsn, DJANGO_SETTINGS_MODULE="settings", SHOP_DATABASES=databases, PYTHONPATH=paths
    ) as project:
        project.write("settings.py", SETTINGS)
        project.type("python -m django migrate")
        project.type("python -m django migrate --database jobs qworker")
        yield project


def test_models_and_pages_read_and_change_the_database_of_the_jobs(project: Project) -> None:
    assert project.say(SESSION) == ""
    assert project.say(READ) == "True jobs available\n"
    assert project.say(BLOCK) == "2 2\n1 available\n"
    assert project.say(ADMIN) == "True\n302 cancelled True\ndefault True\n"
