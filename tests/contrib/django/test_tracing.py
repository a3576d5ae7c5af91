"""Tracing in a Django project: from a transaction of a view to a task that a node runs."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.contrib.django.test_manage import SETTINGS, Site
from tests.database import Database

pytest.importorskip("opentelemetry.sdk")

TASKS = "django.tasks" if find_spec("django.tasks") else "django_tasks"
JOBS = f"""
from pathlib import Path
from opentelemetry import trace
from {TASKS} import task
from qworker.contrib.django import app

def note(name):
    Path(name).write_text(f"{{trace.get_current_span().get_span_context().trace_id:032x}}")

@task
def greet(name):
    note(f"task-{{name}}")

@app.task
def remember(name):
    note(f"job-{{name}}")
"""
APPS = """
from django.apps import AppConfig

def configure():
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())

class Shop(AppConfig):
    name = "shop"

    def ready(self):
        from qworker.contrib.django import app
        from qworker.contrib.tracing import Tracing
        Tracing(app, setup=configure)
"""
VIEW = """
from django.db import transaction
from opentelemetry import trace
from shop.apps import configure
from shop.jobs import greet, remember

configure()
with trace.get_tracer("shop").start_as_current_span("POST /orders") as span, transaction.atomic():
    greet.enqueue("Ada")
    remember.enqueue("Ada")
print("trace", f"{span.get_span_context().trace_id:032x}")
"""


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Site:
    site = Site(tmp_path, database.dsn)
    tasks = 'TASKS = {"default": {"BACKEND": "qworker.contrib.django.Backend"}}\n'
    apps = SETTINGS.replace('"shop"]', '"shop.apps.Shop"]')
    for name, text in (("settings", apps + tasks), ("jobs", JOBS), ("apps", APPS)):
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return site


def test_a_view_is_followed_into_tasks_and_jobs(shop: Site) -> None:
    (line,) = [line for line in shop.manage("shell", "-c", VIEW).splitlines() if line.startswith("trace ")]
    shop.manage("qworker", "drain", "--queues", "default")
    noted = {path.name: path.read_text() for path in shop.folder.glob("*-Ada")}
    assert noted == dict.fromkeys(["task-Ada", "job-Ada"], line.removeprefix("trace "))
