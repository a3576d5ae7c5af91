"""qworker in a project that is ten years old: ATOMIC_REQUESTS, two databases, a router, other tasks, its own users."""

from pathlib import Path

import pytest

from tests.contrib.django.test_manage import Site
from tests.database import Database

SETTINGS = """
import os
from tests.contrib.django.settings import database

SECRET_KEY = "of a test"
DEBUG = False
ALLOWED_HOSTS = ["testserver"]
USE_TZ = False
TIME_ZONE = "America/Lima"
ROOT_URLCONF = "shop.urls"
AUTH_USER_MODEL = "shop.Customer"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["qworker.contrib.django", "django.contrib.contenttypes", "django.contrib.auth", "shop"]
DATABASES = {
    "default": database(os.environ["SHOP_DSN"], ATOMIC_REQUESTS=True, CONN_MAX_AGE=60),
    "archive": database(os.environ["SHOP_DSN"], ATOMIC_REQUESTS=True),
}
DATABASE_ROUTERS = ["shop.routers.Router"]
TASKS = {"default": {"BACKEND": "qworker.contrib.django.DummyBackend"}}
"""
ROUTER = """
class Router:
    labels = {"contenttypes", "auth", "shop"}

    def db_for_read(self, model, **hints):
        return "archive"

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, *_, **__):
        return True

    def allow_migrate(self, db, app_label, **hints):
        return db == "default" and app_label in self.labels
"""
MODELS = """
from django.contrib.auth.models import AbstractUser
from django.db import models

class Customer(AbstractUser):
    pass

class Order(models.Model):
    customer = models.TextField()
"""
# A module of Celery's tasks, as a node finds it.
TASKS = """
def shared_task(function):
    function.delay = function
    return function

@shared_task
def legacy(x):
    return x
"""
JOBS = """
from qworker.contrib.django import app
from shop.models import Order

@app.task
def ship(order):
    Order.objects.using("default").filter(pk=order).update(customer="shipped")
    return order
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from shop.jobs import app, ship
from shop.models import Order

def buy(request):
    order = Order.objects.create(customer="Ada")
    job = ship.enqueue(order.pk)
    if "always" in request.GET:
        ship.using(None).enqueue(0)
    if "wait" in request.GET:
        job.wait(timeout=5)
    if "fail" in request.GET:
        raise ValueError("the request has failed")
    return HttpResponse(str(job.id))

urlpatterns = [path("buy/", buy)]
"""
VISIT = """
from django.core.management import call_command
from django.test import Client
from shop.jobs import app
from qworker.contrib.django.models import Job
call_command("makemigrations", "qworker", check=True)
client = Client(raise_request_exception=False)
seen = []
for query in ("", "fail", "wait", "fail&always"):
    response = client.get("/buy/?" + query)
    seen.append([response.status_code, len(list(app.jobs()))])
print(seen, Job.objects.count(), Job.objects.all().db)
"""


@pytest.fixture
def shop(tmp_path: Path, empty_database: Database) -> Site:
    site = Site(tmp_path, empty_database.dsn)
    files = {
        "settings": SETTINGS, "routers": ROUTER, "models": MODELS, "tasks": TASKS, "jobs": JOBS,
        "urls": URLS,
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return site


def change(shop: Site, name: str, old: str, new: str) -> None:
    path = shop.folder / "shop" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_it_is_added_as_the_page_says(shop: Site, empty_database: Database) -> None:
    shop.manage("makemigrations", "shop")
    said = " ".join(shop.manage("migrate").split())
    assert "W003" not in said
    said = " ".join(shop.manage("check", "--database", "default").split())
    assert "(qworker.W003)" in said
    assert "let allow_migrate return True or None for the app_label 'qworker' in this database" in said
    change(shop, "routers.py", 'labels = {"contenttypes",', 'labels = {"qworker", "contenttypes",')
    shop.manage("migrate", "qworker")
    assert "no issues" in shop.manage("check", "--database", "default", "--database", "archive")
    assert "ok  a node can start" in shop.manage("qworker", "check")
    # A request that fails leaves no job, except one that was enqueued outside of its transaction.
    seen = shop.manage("shell", "--command", VISIT).splitlines()[-1]
    assert seen == "[[200, 1], [500, 1], [500, 1], [500, 2]] 2 default"
    shop.manage("qworker", "drain")
    with empty_database.connect() as conn:
        assert conn.execute("SELECT task, state FROM qworker.jobs").fetchall() == [("shop.jobs.ship", "completed")] * 2
