"""Pages of an interval that was chosen in a chart: their address, their counts, their links."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.counted import add_sums
from tests.database import Database
from tests.web import realistic

PAGES = ("/", "/queue?name=mail", "/task?name=shop.mail.welcome", "/tasks", "/workers")
HOUR = timedelta(hours=1)


def at(ago: timedelta) -> str:
    return f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}"


def counted(database: Database, ago: timedelta, succeeded: int, queue: str = "mail", task: str = "send") -> None:
    with database.connect() as conn:
        conn.execute("INSERT INTO qworker.series (queue, task) VALUES (%s, %s) ON CONFLICT DO NOTHING", [queue, task])
        conn.execute(
            "INSERT INTO qworker.stat (width, at, series, succeeded) SELECT 1, date_trunc('minute', now() - %s), id, %s"
            " FROM qworker.series WHERE queue = %s AND task = %s", [ago, succeeded, queue, task],
        )  # fmt: skip
        add_sums(conn)


def read(client: FlaskClient, path: str, **parameters: str) -> Any:
    answer = client.get(path, query_string=parameters)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return json.loads(answer.data)


def test_counts_are_those_of_the_interval(client: FlaskClient, database: Database) -> None:
    counted(database, timedelta(minutes=10), 7)
    counted(database, 3 * HOUR, 11)
    wanted = {"from": at(3.5 * HOUR), "to": at(2.5 * HOUR)}

    overview, queue = read(client, "/overview.json", **wanted), read(client, "/queue.json", name="mail", **wanted)
    task, tasks = read(client, "/task.json", name="send", **wanted), read(client, "/tasks.json", **wanted)

    assert overview["total"]["succeeded"] == 11
    assert queue["counts"]["succeeded"] == task["counts"]["succeeded"] == tasks["tasks"][0]["counts"]["succeeded"] == 11
    assert sum(point["counts"]["succeeded"] for point in overview["points"]) == 11
    assert overview["from"] <= wanted["from"] < wanted["to"] <= overview["to"]
    assert 3_600 <= overview["seconds"] <= 4_800
    assert read(client, "/overview.json")["total"]["succeeded"] == 7


@pytest.mark.parametrize("path", PAGES)
def test_an_interval_is_a_chip_that_can_be_removed_and_stays_in_links(
    client: FlaskClient, database: Database, path: str
) -> None:
    realistic.fill(database.dsn)
    join = "&" if "?" in path else "?"
    text = client.get(f"{path}{join}period=24h&from={at(3 * HOUR)}&to={at(2 * HOUR)}").get_data(as_text=True)

    (chip,) = re.findall(r'<p class="chip">(.*?)</p>', text, re.DOTALL)
    jobs, remove = map(unescape, re.findall(r'href="([^"]*)"', chip))
    assert client.get(jobs).status_code == 200
    assert "after:2" in jobs
    assert "from=" not in remove
    assert "period=24h" in remove
    assert 'class="chip"' not in client.get(remove).get_data(as_text=True)
    assert re.search(r'href="[^"]*\.json\?[^"]*from=', text)
    assert re.search(r'data-hx-get="[^"]*from=', text)
    others = [unescape(found) for found in re.findall(r'<th scope="row"[^>]*>.*?href="(/(?:task|queue)\?[^"]*)"', text)]
    assert all("from=" in other for other in others)
    assert others or path in {"/workers", "/task?name=shop.mail.welcome"}


@pytest.mark.parametrize(
    "wanted",
    [
        "from=2026-01-01", "to=2026-01-01", "from=x&to=y", "from=2026-01-02&to=2026-01-01",
        "from=2026-01-01&to=2026-05-01", "from=0001-01-01&to=9999-12-31", "from=9999-12-31&to=9999-12-31T23:00",
        "from=2026-01-01&to=2026-01-01", f"from={'1' * 50}&to=2026-01-01",
        "from=0001-01-01T00:00%2B14:00&to=2026-01-01",
    ],
)  # fmt: skip
def test_an_interval_out_of_bounds_is_refused(client: FlaskClient, wanted: str) -> None:
    for path in ("/overview.json", "/workers.json", "/queue.json?name=mail", "/task.json?name=x", "/tasks.json"):
        answer = client.get(f"{path}{'&' if '?' in path else '?'}{wanted}")
        assert answer.status_code == 400
        assert "from" in answer.get_data(as_text=True) or "to " in answer.get_data(as_text=True)


def test_an_old_interval_shows_that_nothing_is_kept(client: FlaskClient) -> None:
    answer = client.get("/?from=2026-01-01T10:00Z&to=2026-01-01T11:00Z")
    assert answer.status_code == 200
    assert "nothing in this period" in answer.get_data(as_text=True)


def chosen(opened: Any) -> Any:
    opened.wait_for_url("**/*from=*")
    chip = opened.locator(".chip")
    chip.wait_for()
    return chip


def test_the_brush_sets_the_period_by_mouse_and_is_removed(opened: Any, database: Database) -> None:
    counted(database, timedelta(minutes=10), 7)
    counted(database, timedelta(minutes=40), 11)
    opened.goto("/?period=1h")
    box = opened.locator(".chart").first.locator(".chart-plot > .chart-svg").bounding_box()
    y = box["y"] + box["height"] / 2
    opened.mouse.move(box["x"] + box["width"] * 0.2, y)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] * 0.3, y)
    opened.mouse.move(box["x"] + box["width"] * 0.45, y)
    opened.locator(".chart-brush").wait_for()
    opened.mouse.up()

    chip = chosen(opened)

    completed = opened.locator(".tile").filter(has_text="Completed").locator("dd").first
    assert completed.inner_text() == "11"
    assert opened.locator(".choices [aria-current]").count() == 0
    with opened.expect_response(lambda answer: "region=charts" in answer.url and "from=" in answer.url):
        opened.keyboard.press("r")
    chip.get_by_role("link", name="Remove this time").click()
    opened.wait_for_url("**/?period=1h")
    assert opened.locator(".chip").count() == 0
    assert completed.inner_text() == "18"


def test_the_brush_sets_the_period_by_keys_and_leads_to_the_jobs(opened: Any, database: Database) -> None:
    counted(database, timedelta(minutes=10), 7)
    opened.goto("/queue?name=mail&period=24h")
    opened.locator(".chart-plot").first.focus()
    for key in ("ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft", "Enter"):
        opened.keyboard.press(key)

    chip = chosen(opened)

    assert "period=24h" in opened.url
    assert "name=mail" in opened.url
    chip.get_by_role("link", name="Jobs enqueued then").click()
    opened.wait_for_url("**/jobs?q=*")
    assert re.fullmatch(r"queue:mail after:\S+Z before:\S+Z", opened.get_by_label("Filter").input_value())
    assert opened.get_by_role("alert").count() == 0
