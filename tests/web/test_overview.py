"""The overview with the data of a shop, of which the numbers are known."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.database import Database
from tests.waiting import until
from tests.web import realistic
from tests.web.browser import serving
from tests.web.conftest import Clock


@pytest.fixture
def shop(database: Database, client: FlaskClient) -> FlaskClient:
    realistic.fill(database.dsn)
    return client


def test_it_adds_the_counts_of_the_queues(shop: FlaskClient, database: Database) -> None:
    conn = database.connect()

    def same() -> Any:
        """Return the data of the page if no minute has begun since viewers share it: the hour moves on then."""
        found = json.loads(shop.get("/overview.json").data)
        ((expected,),) = conn.execute(
            "SELECT sum(succeeded) FROM qworker.stat WHERE at >= now() - interval '1 hour'"
        ).fetchall()  # fmt: skip
        return found if found["total"]["succeeded"] == expected else None

    found = until(same, 40.0)
    assert found["total"]["succeeded"] == sum(row["counts"]["succeeded"] for row in found["queues"])
    assert found["total"]["wait"]["p95"] > found["total"]["wait"]["p50"] > 0
    assert found["nodes"] == 2
    assert len(found["points"]) >= 59


@pytest.mark.parametrize("period", ["1h", "24h", "7d", "30d"])
def test_it_shows_each_period(shop: FlaskClient, period: str) -> None:
    page = shop.get("/", query_string={"period": period}).get_data(as_text=True)
    assert page.count('class="chart"') == 4
    assert "integrations-with-a-rather-long-name" in page
    assert ">paused<" in page


def test_it_shows_what_the_doctor_has_found(shop: FlaskClient) -> None:
    # The first view does not wait until the doctor has made all checks.
    until(lambda: "shop.mail.newsletter" in shop.get("/?region=now").get_data(as_text=True), 30.0)
    found = json.loads(shop.get("/overview.json").data)["findings"]
    assert {"stops", "warning"} >= {one["severity"] for one in found}
    assert found


def test_a_spreadsheet_gets_the_queues(shop: FlaskClient) -> None:
    answer = shop.get("/overview.csv")
    head, *rows = answer.get_data(as_text=True).splitlines()
    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert head.startswith("queue,available,")
    assert len(rows) == 6


def test_thirty_viewers_ask_the_database_as_often_as_one(
    clock: Clock, shop: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    sent: list[str] = []
    readers = shop.application.extensions["qworker_source"].readers
    original = type(readers).getconn

    def counted(self: Any) -> Any:
        sent.append("")
        return original(self)

    monkeypatch.setattr(type(readers), "getconn", counted)
    shop.get("/?region=queues")
    first = len(sent)
    for _ in range(30):
        shop.get("/?region=queues")
    assert first > 3
    assert len(sent) == first


def test_a_refresh_is_small(shop: FlaskClient) -> None:
    for region in ("now", "charts", "queues"):
        answer = shop.get("/", query_string={"region": region}, headers={"Accept-Encoding": "gzip"})
        assert len(answer.data) < 15_000, region


def test_without_javascript_everything_is_there(browser: Any, shop: FlaskClient) -> None:
    with serving(shop.application) as url:
        context = browser.new_context(java_script_enabled=False, base_url=url)
        page = context.new_page()
        page.goto("/")
        page.get_by_role("link", name="24 h").click()
        assert page.get_by_role("row", name="checkout").is_visible()
        page.locator("summary").first.click()
        page.get_by_role("region", name="Numbers: Attempts that ended").wait_for()
        context.close()
