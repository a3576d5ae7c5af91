"""What holds for every page: with a shop's data and without any, in both themes, on a phone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from threading import get_ident
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.db.pool import Pool
from qworkerd.web import application
from qworkerd.web.pages import modules
from qworkerd.web.security import POLICY
from qworkerd.web.shared import Shared
from tests.database import Database
from tests.waiting import until
from tests.web import realistic
from tests.web.browser import serving
from tests.web.screenshots import pages

#: Addresses of single things of the shop.
SINGLE = {
    "queues": "/queue?name=integrations-with-a-rather-long-name", "jobs": "/jobs/2001",
    "errors": "/errors/0000000000001093", "tasks": "/task?name=shop.mail.newsletter",
    "compare": "/jobs/compare?a=2001&b=437",
}  # fmt: skip
NAMES = [module.entry.endpoint.partition(".")[0] for module in modules() if hasattr(module, "entry")]
#: The rows of the numbers of a chart are all alike; a page has hundreds of them. In the other theme only colours
#: differ.
AXE = "axe.run({{exclude: ['.chart-numbers tbody tr + tr']}}, {{runOnly: {}, resultTypes: ['violations']}})"
RULES = {
    "light": AXE.format(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]),
    "dark": AXE.format("{type: 'rule', values: ['color-contrast']}"),
}
#: The elements that reach beyond the window, with their right edges.
WIDE = """[...document.querySelectorAll('body *')].map((e) => [e, Math.round(e.getBoundingClientRect().right)])
           .filter(([, right]) => right > innerWidth)
           .map(([e, right]) => `${e.tagName}.${e.className} ${right} of ${innerWidth}`).slice(0, 20)"""
FITS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture
def addresses(dashboard: Flask) -> dict[str, str]:
    return {name: address for name, address in pages(dashboard).items() if name in NAMES}


@pytest.fixture
def shop(database: Database, client: FlaskClient) -> FlaskClient:
    """A shop at work, of which one node is paused."""
    realistic.fill(database.dsn)
    database.connect().execute(
        "INSERT INTO qworker.paused_node VALUES (2, now() - interval '9 min', 'anna@shop.example', %s)",
        ["the kernel is replaced before the sale begins " + "and the network cards as well, " * 9],
    )
    return client


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_shown_without_any_data(client: FlaskClient, addresses: dict[str, str], name: str) -> None:
    answer = client.get(addresses[name])
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_json_as_well(shop: FlaskClient, addresses: dict[str, str], name: str) -> None:
    path = "/overview" if name == "overview" else addresses[name]
    answer = shop.get(f"{path}.json")
    assert answer.mimetype == "application/json"
    assert isinstance(json.loads(answer.data), dict)


@pytest.mark.parametrize("name", NAMES)
def test_looking_changes_nothing(shop: FlaskClient, database: Database, addresses: dict[str, str], name: str) -> None:
    before = written(database)
    for method in ("get", "head", "options"):
        getattr(shop, method)(addresses[name])
    assert written(database) == before
    assert shop.delete(addresses[name], headers={"Sec-Fetch-Site": "same-origin"}).status_code == 405
    assert shop.put(addresses[name]).status_code in {403, 405}


def written(database: Database) -> Any:
    return database.connect().execute(
        "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_all_tables WHERE schemaname = 'qworker'"
    ).fetchone()  # fmt: skip


#: What browsers send with requests that no page of the dashboard has made.
FOREIGN: tuple[dict[str, str], ...] = (
    {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"}, {"Origin": "null"},
)  # fmt: skip


def actions(app: Flask) -> list[str]:
    return [str(rule) for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())]


@pytest.mark.parametrize("name", [*NAMES, *(f"one of {name}" for name in SINGLE)])
def test_viewers_share_what_is_read_for_it(
    make_dashboard: Any, database: Database, addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    realistic.fill(database.dsn)
    # Time stands still, so that no answer expires meanwhile.
    monkeypatch.setattr(application, "Shared", lambda: Shared(lambda: 1.0))
    client, borrowed, getconn = make_dashboard().test_client(), list[int](), Pool.getconn

    def count(pool: Pool) -> Any:
        borrowed.append(get_ident())
        return getconn(pool)

    address = SINGLE[name.removeprefix("one of ")] if name.startswith("one of ") else addresses[name]
    assert client.get(address).status_code == 200
    monkeypatch.setattr(Pool, "getconn", count)
    for _ in range(3):
        assert client.get(address).status_code == 200
    # The doctor examines in another thread.
    assert borrowed.count(get_ident()) == 0


def test_no_action_is_taken_by_get_or_from_another_site(dashboard: Flask, client: FlaskClient) -> None:
    for path in actions(dashboard):
        address = path.replace("<int:job_id>", "1").replace("<int:number>", "1")
        if "<" in address:
            continue
        assert client.get(address).status_code in {404, 405}, path
        for headers in FOREIGN:
            assert client.post(address, headers=headers).status_code == 403, (path, headers)


def test_no_action_is_open_to_a_user_without_the_right(make_dashboard: Any) -> None:
    app = make_dashboard(read_only=True)
    for path in actions(app):
        address = path.replace("<int:job_id>", "1").replace("<int:number>", "1")
        if "<" not in address:
            answer = app.test_client().post(address, headers={"Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == 403, path
            assert "no right" in answer.get_data(as_text=True)


@contextmanager
def tab(browser: Any, app: Flask, **options: Any) -> Iterator[Any]:
    with serving(app) as url:
        context = browser.new_context(base_url=url, reduced_motion="reduce", **options)
        context.set_default_timeout(30_000)
        try:
            yield context.new_page()
        finally:
            context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [*NAMES, *(name for name in SINGLE if name not in NAMES)])
def test_it_is_accessible_in_both_themes(
    browser: Any, shop: FlaskClient, addresses: dict[str, str], name: str, theme: str
) -> None:
    axe = (files("axe_playwright_python") / "axe.min.js").read_text()
    with tab(browser, shop.application, color_scheme=theme) as page:
        for address in filter(None, (addresses.get(name), SINGLE.get(name))):
            page.goto(address)
            page.evaluate(axe)
            found = page.evaluate(RULES[theme])
            assert found["passes"], "no rule has looked at the page"
            wrong = [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]
            assert wrong == [], address


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_it_fits_into_the_window(browser: Any, shop: FlaskClient, addresses: dict[str, str], width: int) -> None:
    with tab(browser, shop.application, viewport={"width": width, "height": 800}) as page:
        for address in (*addresses.values(), *SINGLE.values()):
            page.goto(address)
            until(lambda: page.evaluate(FITS), 3.0, lambda: f"{page.url}: {page.evaluate(WIDE)}")


def test_no_page_violates_its_policy(browser: Any, shop: FlaskClient, addresses: dict[str, str]) -> None:
    said: list[str] = []
    with tab(browser, shop.application) as page:
        page.on("console", lambda message: said.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
        for address in (*addresses.values(), *SINGLE.values()):
            page.goto(address)
            page.keyboard.press("r")
            page.wait_for_load_state("networkidle")
    assert [line for line in said if "Failed to load resource" not in line] == []
