"""The dashboard over the session's database: `client` through WSGI, `opened` in a browser."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworkerd.web import application, create_app, everybody
from qworkerd.web.shared import Shared
from tests.database import Database
from tests.web import browser as browsers

#: What a browser sends with a form of the same site.
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


#: Executes a query, and returns its rows.
Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def rows(database: Database) -> Rows:
    """Read the database of the dashboard."""
    conn = database.connect()
    return lambda text, *parameters: conn.execute(text, parameters or None).fetchall()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the answers of dashboards that are made later."""
    clock = Clock()
    monkeypatch.setattr(application, "Shared", lambda: Shared(clock))
    return clock


@pytest.fixture
def make_dashboard(database: Database) -> Iterator[Callable[..., Flask]]:
    """Make the dashboard of the database; arguments are those of create_app."""
    with ExitStack() as stack:

        def make(target: Any = None, **options: Any) -> Flask:
            app = create_app(target or database.dsn, **{"access": everybody("anna")} | options)
            stack.callback(app.extensions["qworker_source"].close)
            return app

        yield make


@pytest.fixture
def dashboard(make_dashboard: Callable[..., Flask]) -> Flask:
    """The dashboard for a user "anna" who may do everything."""
    return make_dashboard()


@pytest.fixture
def client(dashboard: Flask) -> FlaskClient:
    """Requests without a browser."""
    return dashboard.test_client()


# Not of the session: Playwright keeps an event loop running in this thread. Until the browser has ended, other tests
# could neither call asyncio.run() nor use Django's ORM.
@pytest.fixture(scope="module")
def browser(nothing_left: None) -> Iterator[Any]:
    """The browser of the tests of a file; they are skipped without one."""
    pytest.importorskip("playwright.sync_api")
    if browsers.executable() is None:
        pytest.skip("no browser: install Debian's package chromium")
    with browsers.launched() as browser:
        yield browser


@pytest.fixture
def opened(browser: Any, dashboard: Flask) -> Iterator[Any]:
    """A tab of the browser; its base URL is that of the dashboard: opened.goto("/jobs").

    The test fails if the page has violated its policy or has raised an error.
    """
    with browsers.serving(dashboard) as url:
        context = browser.new_context(base_url=url)
        context.set_default_timeout(30_000)
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        try:
            yield page
        finally:
            context.close()
        # That a server answers with an error is a matter of the test.
        assert [text for text in wrong if not text.startswith("Failed to load resource")] == []
