"""The dashboard below a path of a Flask application, with its users."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, request, session, url_for
from flask_login import LoginManager, UserMixin, login_user
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from qworker.contrib.flask import Qworker
from qworkerd.web import Access, Redirect
from qworkerd.web.access import ALL, READ
from qworkerd.web.flask import flask_access, flask_login_access, mount
from tests.database import Database
from tests.web.browser import serving
from tests.web.conftest import SAME_ORIGIN


@pytest.fixture
def host(database: Database) -> Iterator[Flask]:
    host = Flask("shop")
    host.config.update(SECRET_KEY="tests", QWORKER_DSN=database.dsn)
    queue = Qworker(host)

    @host.get("/")
    def home() -> str:
        session["user"] = "anna"
        return "the shop"

    def user() -> Access | None:
        return Access(session["user"], READ) if "user" in session else None

    dashboard = mount(host, queue, "/ops/queues", access=flask_access(host, user))
    yield host
    dashboard.extensions["qworker_source"].close()


def test_it_is_below_its_path_and_the_rest_is_the_application(host: Flask) -> None:
    client = Client(host.wsgi_app)
    assert client.get("/ops/queues/").status_code == 401
    assert client.get("/").text == "the shop"
    page = client.get("/ops/queues/")
    assert page.status_code == 200
    assert 'href="/ops/queues/static/qworker.css?' in page.text
    assert 'data-root="/ops/queues/"' in page.text
    assert 'data-hx-get="/ops/queues/?region=now"' in page.text
    assert client.get("/ops/queues/overview.json?period=7d").json["period"] == "7d"  # type: ignore[index]
    assert client.get("/ops/queuesx").status_code == 404


@pytest.mark.parametrize("first", ["ProxyFix", "mount"])
def test_it_believes_the_proxy_that_the_application_believes(database: Database, first: str) -> None:
    host = Flask("shop")
    host.config.update(SECRET_KEY="tests")
    accounts = Blueprint("accounts", __name__, url_prefix="/accounts")

    @accounts.get("/sign-in")
    def sign_in() -> str:
        session["user"] = "anna"
        return "in"

    host.register_blueprint(accounts, url_prefix="/de/accounts")

    def fix() -> None:
        # One for each of two purposes, as in applications that have grown.
        host.wsgi_app = ProxyFix(host.wsgi_app, x_host=1)  # type: ignore[method-assign]
        host.wsgi_app = ProxyFix(host.wsgi_app, x_for=0, x_proto=0, x_prefix=1)  # type: ignore[method-assign]

    def user() -> Access | Redirect:
        return Access(session["user"], ALL) if "user" in session else Redirect(url_for("accounts.sign_in"))

    if first == "ProxyFix":
        fix()
    dashboard = mount(host, database.dsn, "/jobs", access=flask_access(host, user))
    if first == "mount":
        fix()
    client = Client(host)
    headers = {
        "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Forwarded-Prefix": "/sub",
        "X-Forwarded-For": "192.0.2.7",
    }  # fmt: skip
    assert client.get("/jobs/", headers=headers).headers["Location"] == "/sub/de/accounts/sign-in"
    client.get("/de/accounts/sign-in", headers=headers)
    assert 'data-root="/sub/jobs/"' in client.get("/jobs/", headers=headers).text
    form = {"data": {"name": "mail"}, "headers": headers | {"Origin": "https://shop.example"}}
    answer = client.post("/jobs/queues/pause", **form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sub/jobs/")
    assert all("; Secure;" in cookie for cookie in answer.headers.getlist("Set-Cookie"))
    rows = database.connect().execute("SELECT actor, address FROM qworker.audit").fetchall()
    assert rows == [("anna", "192.0.2.7")]
    dashboard.extensions["qworker_source"].close()


def test_all_addresses_of_a_page_stay_below_the_path(host: Flask, browser: Any) -> None:
    with serving(host.wsgi_app) as url:
        context = browser.new_context(base_url=url)
        page = context.new_page()
        page.goto("/")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto("/ops/queues/")
        page.get_by_role("heading", name="Overview", exact=True).wait_for()
        with page.expect_response(lambda answer: "region=" in answer.url) as answer:
            page.keyboard.press("r")
        assert answer.value.status == 200
        context.close()
    assert len(asked) > 4
    assert [address for address in asked if not address.startswith(f"{url}/ops/queues/")] == []


def test_users_of_flask_login_have_the_rights_of_their_role(database: Database) -> None:
    host = Flask("shop")
    host.config.update(SECRET_KEY="tests")
    manager = LoginManager(host)
    manager.login_view = "sign_in"

    class Person(UserMixin):  # type: ignore[misc] # it has no types
        def __init__(self, name: str) -> None:
            self.id = name

    manager.user_loader(Person)

    @host.get("/in")
    def sign_in() -> str:
        return str(login_user(Person(request.args["name"])))

    access = flask_login_access(host, lambda user: ALL if user.id == "boss" else frozenset())
    dashboard = mount(host, database.dsn, access=access)
    client = Client(host.wsgi_app)
    assert client.get("/qworker/").headers["Location"] == "/in"
    client.get("/in?name=boss")
    assert "signed in as <bdi>boss" in client.get("/qworker/").text
    client.get("/in?name=eve")
    assert client.get("/qworker/").status_code == 401
    dashboard.extensions["qworker_source"].close()


def test_a_path_begins_with_a_slash_and_ends_without_one(host: Flask) -> None:
    for path in ("ops", "/ops/", "", "/"):
        with pytest.raises(ValueError, match="begin it with a slash"):
            mount(host, None, path, access=lambda _environ: None)


def test_no_right_of_the_host_is_more_than_it_says(host: Flask) -> None:
    client = Client(host.wsgi_app)
    client.get("/")
    answer = client.post("/ops/queues/queues/pause", data={"name": "mail"}, headers=SAME_ORIGIN)
    assert answer.status_code in {403, 404}
