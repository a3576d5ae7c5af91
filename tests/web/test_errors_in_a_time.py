"""Groups of errors of a time that was chosen: by the address, by a form without a script, and by the brush."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.database import Database
from tests.web.test_errors import FIRST, group

SECOND = f"{2:016x}"
HOUR = timedelta(hours=1)


def at(ago: timedelta) -> str:
    return f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}"


def occurred(database: Database, number: int, ago: timedelta, count: int) -> None:
    """Add errors of a group that happened some time ago."""
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.error_stat (fingerprint, at, count)"
            " SELECT %(n)s, date_bin('10 minutes', now() - %(ago)s, '2000-01-01 00:00:00+00'), %(count)s",
            {"n": number, "ago": ago, "count": count},
        )
        conn.execute(
            "UPDATE qworker.error_group SET first_seen = least(first_seen, now() - %(ago)s) WHERE fingerprint = %(n)s",
            {"n": number, "ago": ago},
        )


@pytest.fixture
def groups(database: Database) -> None:
    """Two groups that have just occurred; the first one occurred 3 hours ago, too, the second one 30 hours ago."""
    group(database)
    group(database, "no such customer", 2)
    occurred(database, 1, 3 * HOUR, 7)
    occurred(database, 2, 30 * HOUR, 5)


THEN = {"from": 3.4 * HOUR, "to": 2.6 * HOUR}


def then(**ago: timedelta) -> dict[str, str]:
    return {name: at(time) for name, time in (THEN | ago).items()}


def read(client: FlaskClient, path: str, **parameters: str) -> Any:
    answer = client.get(path, query_string=parameters)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return json.loads(answer.data)


@pytest.mark.usefixtures("groups")
def test_groups_and_their_counts_are_those_of_the_time(client: FlaskClient) -> None:
    found = read(client, "/errors.json", **then())

    assert [(one["fingerprint"], sum(one["recent"]), one["count"]) for one in found["groups"]] == [(FIRST, 7, 1)]
    assert found["from"] <= then()["from"] < then()["to"] <= found["to"]
    assert (found["step"] % 600, found["incomplete"]) == (0, False)
    whole = read(client, "/errors.json", **then(**{"from": 31 * HOUR, "to": -HOUR}))
    assert {one["fingerprint"]: sum(one["recent"]) for one in whole["groups"]} == {FIRST: 8, SECOND: 6}
    assert read(client, "/errors.json", **then(**{"from": 20 * HOUR, "to": 10 * HOUR}))["groups"] == []
    one = read(client, f"/errors/{FIRST}.json", **then())
    assert (sum(one["group"]["recent"]), one["from"]) == (7, found["from"])
    # A group is shown even if it has not occurred then.
    assert sum(read(client, f"/errors/{SECOND}.json", **then())["group"]["recent"]) == 0


@pytest.mark.usefixtures("groups")
def test_what_happened_after_the_time_is_not_in_its_last_part(client: FlaskClient, database: Database) -> None:
    """The bars are equal, and the last one may reach beyond the end."""
    begin = datetime.now(UTC) - 40 * HOUR
    for number in range(120):
        end = begin + timedelta(minutes=10 * (number + 1))
        found = read(client, f"/errors/{FIRST}.json", **{"from": f"{begin:%FT%TZ}", "to": f"{end:%FT%TZ}"})
        assert sum(found["group"]["recent"]) == 0
        assert len(found["group"]["recent"]) <= 48


@pytest.mark.usefixtures("groups")
def test_the_list_says_which_time_it_shows_and_keeps_it_in_links(client: FlaskClient) -> None:
    text = client.get("/errors", query_string=then() | {"task": "shop.send", "period": "1h"}).get_data(as_text=True)

    (chip,) = re.findall(r'<p class="chip">(.*?)</p>', text, re.DOTALL)
    jobs, remove = map(unescape, re.findall(r'href="([^"]*)"', chip))
    assert "task:shop.send+after:2" in jobs
    assert client.get(jobs).status_code == 200
    assert "from=" not in remove
    assert "task=shop.send" in remove
    (link,) = map(unescape, re.findall(rf'href="(/errors/{FIRST}[^"]*)"', text))
    assert "from=" in link
    one = client.get(link).get_data(as_text=True)
    assert "It occurred 7 times in this time, which has whole parts of ten minutes." in one
    assert 'class="chip"' in one
    head, row = client.get("/errors.csv", query_string=then()).get_data(as_text=True).splitlines()
    assert (head.rsplit(",", 1)[1], row.rsplit(",", 1)[1]) == ("count_in_interval", "7")
    assert 'href="/errors?state=all&amp;period=24h&amp;from=' in client.get(
        "/", query_string=then() | {"period": "24h"}
    ).get_data(as_text=True)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("from=2026-01-01", "to is missing"), ("to=2026-01-01", "from is missing"), ("from=x&to=y", "not a time"),
        ("from=2026-01-02&to=2026-01-01", "not after"), ("from=2026-01-01&to=2026-01-09", "kept for 7"),
        ("from=0001-01-01&to=9999-12-31", "after the year 1999"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("groups")
def test_a_time_out_of_bounds_is_refused(client: FlaskClient, wanted: str, said: str) -> None:
    for path in ("/errors.json", f"/errors/{FIRST}.json"):
        answer = client.get(f"{path}?{wanted}")
        assert answer.status_code == 400
        assert said in answer.get_data(as_text=True)


@pytest.mark.usefixtures("groups")
def test_a_time_whose_counts_are_deleted_says_so(client: FlaskClient) -> None:
    old = {"from": at(9 * 24 * HOUR), "to": at(8 * 24 * HOUR)}
    for path in ("/errors", f"/errors/{FIRST}"):
        assert "kept for seven days" in client.get(path, query_string=old).get_data(as_text=True)
        assert "kept for seven days" not in client.get(path, query_string=then()).get_data(as_text=True)


@pytest.mark.usefixtures("groups")
def test_a_time_is_chosen_without_a_script(browser: Any, dashboard: Any) -> None:
    from tests.web.browser import serving

    with serving(dashboard) as url:
        context = browser.new_context(base_url=url, java_script_enabled=False, viewport={"width": 320, "height": 700})
        tab = context.new_page()
        tab.goto("/errors")
        assert tab.locator("tbody tr").count() == 2
        tab.get_by_text("Between two times").click()
        now = datetime.now(UTC)
        tab.get_by_label("From (UTC)").fill(f"{now - 3.4 * HOUR:%Y-%m-%dT%H:%M}")
        tab.get_by_label("To (UTC)").fill(f"{now - 2.6 * HOUR:%Y-%m-%dT%H:%M}")
        tab.get_by_role("button", name="Search").click()
        tab.locator(".chip").wait_for()
        assert tab.locator("tbody tr").count() == 1
        tab.get_by_role("link", name="Remove this time").click()
        tab.wait_for_url(lambda address: "from=" not in address)
        assert tab.locator("tbody tr").count() == 2
        context.close()


@pytest.mark.usefixtures("groups")
def test_the_brush_of_a_group_sets_the_time(opened: Any) -> None:
    opened.goto(f"/errors/{FIRST}?period=24h")
    opened.locator(".chart-plot").first.focus()
    for key in ("ArrowLeft", "Shift+ArrowLeft", "Enter"):
        opened.keyboard.press(key)

    opened.wait_for_url(f"**/errors/{FIRST}?*from=*")

    assert opened.get_by_text("It occurred once in this time").count() == 1
    opened.locator(".chip").get_by_role("link", name="Jobs enqueued then").click()
    opened.wait_for_url("**/jobs?q=*")
    assert re.fullmatch(rf"fp:{FIRST} after:\S+Z before:\S+Z", opened.get_by_label("Filter").input_value())
