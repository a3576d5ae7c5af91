"""The dashboard below a path of a Django project, for users of its admin."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from django.urls import include, path

from tests.web.conftest import SAME_ORIGIN


class Urls:
    """What ROOT_URLCONF names: made when a test begins, because it needs the database of the test."""

    urlpatterns: ClassVar[list[Any]] = []


@pytest.fixture
def project(site: Path) -> Iterator[None]:
    from qworkerd.web.django import urls

    call_command("migrate", verbosity=0)
    patterns = urls()
    Urls.urlpatterns = [path("staff/jobs/", include(patterns))]
    with override_settings(ROOT_URLCONF=Urls, LOGIN_URL="/sign-in/"):
        yield
    User.objects.all().delete()


def client_of(name: str, *permissions: str, **fields: Any) -> Client:
    user = User.objects.create_user(name, is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="qworker"))
    client = Client()
    client.force_login(user)
    return client


def test_only_staff_with_the_permission_gets_in(project: None) -> None:
    answer = Client().get("/staff/jobs/?period=7d")
    assert (answer.status_code, answer["Location"]) == (303, "/sign-in/?next=/staff/jobs/%3Fperiod%3D7d")
    assert client_of("nobody").get("/staff/jobs/").status_code == 401
    assert client_of("viewer", "view_job").get("/staff/jobs/").status_code == 200
    assert client_of("boss", is_superuser=True).get("/staff/jobs/").status_code == 200


def test_the_page_to_sign_in_may_have_parameters(project: None) -> None:
    with override_settings(LOGIN_URL="/sign-in/?method=sso"):
        answer = Client().get("/staff/jobs/jobs?q=state:failed")
    assert answer["Location"] == "/sign-in/?method=sso&next=/staff/jobs/jobs%3Fq%3Dstate%3Afailed"


class Member:
    """A user of a model that a project has made from AbstractBaseUser alone."""

    is_authenticated = is_active = True


@pytest.mark.parametrize("fields", [{}, {"is_staff": True}, {"has_perm": lambda _name: True}])
def test_users_of_a_model_without_staff_or_permissions_are_refused(project: None, fields: dict[str, Any]) -> None:
    from qworkerd.web.django import REQUEST, staff

    user = Member()
    vars(user).update(fields)
    assert staff({REQUEST: SimpleNamespace(user=user)}) is None


class ReadsForms:
    """A middleware that looks into every form, as those of old projects do."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        assert request.POST.get("nothing") is None
        return self._get_response(request)


def test_a_form_that_a_middleware_has_read_is_still_read(project: None) -> None:
    from qworker.contrib.django import app

    boss = client_of("boss", is_superuser=True)
    name = f"{ReadsForms.__module__}.{ReadsForms.__name__}"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, name]):
        # The test client sends multipart/form-data, and the other one is what browsers send.
        first = boss.post("/staff/jobs/queues/pause", {"name": "a & b", "reason": "\xe9"}, headers=SAME_ORIGIN)
        kind = "application/x-www-form-urlencoded"
        second = boss.post("/staff/jobs/queues/pause", "name=c", content_type=kind, headers=SAME_ORIGIN)
    assert (first.status_code, second.status_code) == (303, 303)
    assert {pause.queue: pause.reason for pause in app.admin.paused()} == {"a & b": "\xe9", "c": None}


def test_its_addresses_are_below_its_path(project: None) -> None:
    client = client_of("boss", is_superuser=True)
    page = client.get("/staff/jobs/").content.decode()
    assert 'href="/staff/jobs/static/qworker.css?' in page
    assert 'data-hx-get="/staff/jobs/?region=now"' in page
    assert client.get("/staff/jobs/overview.json?period=30d").json()["period"] == "30d"
    tag = client.get("/staff/jobs/?region=queues")["ETag"]
    assert client.get("/staff/jobs/?region=queues", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/staff/jobs/static/qworker.js")["Content-Type"].startswith("text/javascript")
    assert client.get("/staff/jobs/nothing").status_code == 404


def test_it_checks_origins_itself(project: None) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("boss"))
    assert client.post("/staff/jobs/nothing", {"a": "1"}).status_code == 403
    assert client.post("/staff/jobs/nothing", {"a": "1"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/staff/jobs/nothing", {"a": "1"}, headers=SAME_ORIGIN).status_code == 404


def test_it_answers_under_asgi_as_well(project: None) -> None:
    answer = asyncio.run(AsyncClient().get("/staff/jobs/"))
    assert (answer.status_code, answer["Location"]) == (303, "/sign-in/?next=/staff/jobs/")


def work(user_id: int) -> None:
    """Do it."""


def test_a_form_enqueues_a_task_of_the_project_once(project: None) -> None:
    from qworker.contrib.django import app

    app.task(name="dashboard.work")(work)
    try:
        boss = client_of("boss", is_superuser=True)
        page = boss.get("/staff/jobs/task?name=dashboard.work").content.decode()
        assert 'action="/staff/jobs/task/enqueue#enqueue"' in page
        form = {"name": "dashboard.work", "key": "k", "arg.user_id": "7"}
        headers = {**SAME_ORIGIN, "Accept": "application/json"}
        first, second = (boss.post("/staff/jobs/task/enqueue", form, headers=headers).json() for _ in range(2))
        assert (first["changed"], second["changed"]) == (True, False)
        assert first["result"]["job"] == second["result"]["job"]
        job = app.job(first["result"]["job"])
        assert (job.task, job.args) == ("dashboard.work", {"user_id": 7})
        assert app.admin.audit(job=job.id)[0].actor == "boss"
        viewer = client_of("viewer", "view_job")
        assert viewer.post("/staff/jobs/task/enqueue", form, headers=headers).status_code == 403
    finally:
        del app.tasks["dashboard.work"]
