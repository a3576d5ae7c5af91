"""What every page has in common: formats, regions, bounds, headers."""

import json
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworkerd.web import assets
from qworkerd.web.access import READ, Access
from qworkerd.web.security import POLICY


def test_a_page_is_html_and_with_the_suffix_json(client: FlaskClient) -> None:
    assert client.get("/").mimetype == "text/html"
    found = client.get("/overview.json?period=24h")
    assert found.mimetype == "application/json"
    assert json.loads(found.data)["period"] == "24h"


def test_a_region_is_sent_again_only_if_it_has_changed(client: FlaskClient) -> None:
    first = client.get("/?region=queues")
    assert b"<html" not in first.data
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    again = client.get("/?region=queues", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["content", "title", "nothing", "../x", "a" * 501])
def test_only_regions_are_sent_alone(client: FlaskClient, name: str) -> None:
    assert client.get("/", query_string={"region": name}).status_code in {400, 404}


@pytest.mark.parametrize("period", ["99y", "1", "1h;", "\x00", "9" * 9_999])
def test_a_period_is_one_of_four(client: FlaskClient, period: str) -> None:
    found = client.get("/overview.json", query_string={"period": period})
    assert found.status_code == 400
    assert "period" in json.loads(found.data)["error"]


@pytest.mark.parametrize(
    "path", ["/", "/overview.json", "/?region=queues", "/nothing", "/?period=x", "/static/qworker.css"]
)
def test_every_answer_has_the_strict_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers


def test_files_are_kept_by_browsers_and_named_by_their_content(client: FlaskClient) -> None:
    page = client.get("/").get_data(as_text=True)
    address = page.partition('href="/static/qworker.css?')[2].partition('"')[0]
    assert "immutable" in client.get(f"/static/qworker.css?{address}").headers["Cache-Control"]
    assert "immutable" not in client.get("/static/qworker.css?v=0").headers["Cache-Control"]
    assert client.get("/static/../access.py").status_code == 404
    assert client.get("/static/vendor/htmx-4.0.1/LICENSE").status_code == 404


def test_files_that_do_not_exist_are_not_remembered(client: FlaskClient) -> None:
    known = assets._read.cache_info().currsize
    for number in range(50):
        assert client.get(f"/static/{number}.css").status_code == 404
    assert assets._read.cache_info().currsize == known <= len(assets.FILES)


def test_the_first_view_is_small(client: FlaskClient) -> None:
    names = ("/", "/static/qworker.css", "/static/qworker.js", "/static/htmx.js", "/static/icon.svg")
    sizes = {name: len(client.get(name, headers={"Accept-Encoding": "gzip"}).data) for name in names}
    assert sum(sizes.values()) < 60_000, sizes


def test_a_user_without_the_right_to_see_sees_nothing(make_dashboard: Callable[..., Flask]) -> None:
    nobody = make_dashboard(access=lambda _environ: Access("eve", frozenset())).test_client()
    assert nobody.get("/").status_code == 403
    assert nobody.get("/overview.json").status_code == 403
    stranger = make_dashboard(access=lambda _environ: None).test_client()
    assert stranger.get("/").status_code == 401


def test_a_read_only_dashboard_takes_every_right_to_act() -> None:
    everything = Access("anna", frozenset({"*"}))
    assert everything.may("job.retry")
    assert everything.without_actions().actions == READ
    assert not everything.without_actions().may("job.retry")
    assert Access("anna", frozenset({"job"})).may("job.retry")
    assert not Access("anna", frozenset({"job"})).may("queue.pause")
