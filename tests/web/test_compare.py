"""The page that compares two jobs, how one gets there, and how attempts compare with what is usual."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.db.connection import connect
from qworkerd.web import READ, Access
from qworkerd.web.access import VIEW
from tests.database import Database
from tests.qworker.test_statistics import Writer
from tests.web.browser import serving
from tests.web.planted import HOSTILE, LARGE, failed, job


def ended(database: Database, number: int, **columns: Any) -> int:
    """Insert a job that has succeeded."""
    values = {"task": "shop.send", "queue": "mail", "args": "{}", "ran": 2.0, "id": number} | columns
    values["args"] = values["args"] if isinstance(values["args"], str) else json.dumps(values["args"])
    database.connect().execute(
        "INSERT INTO qworker.job_history (id, state, queue, task, args, attempt, priority, crashes, node_losses,"
        " is_hook, enqueued_at, claimed_at, finished_at, ring_day)"
        " VALUES (%(id)s, 'completed', %(queue)s, %(task)s, %(args)s, 1, 5, 0, 0, false, now() - interval '1 min',"
        " now() - interval '50 s', now() - interval '50 s' + %(ran)s * interval '1 s', qworker.history_day(now()))",
        values,
    )
    return number


def read(client: FlaskClient, a: int, b: int | None = None, **more: Any) -> Any:
    found = client.get("/jobs/compare.json", query_string={"a": a, **({} if b is None else {"b": b}), **more})
    assert found.status_code == 200, found.data
    return json.loads(found.data)


def page(client: FlaskClient, a: int, b: int) -> str:
    found = client.get(f"/jobs/compare?a={a}&b={b}")
    assert found.status_code == 200
    return found.get_data(as_text=True)


def test_what_differs_is_shown_and_what_is_equal_is_folded(client: FlaskClient, database: Database) -> None:
    a = failed(database, args={"order": {"id": LARGE, "to": "ann"}, "copies": 1}, tags=["vip"])
    b = ended(database, 500_001, args={"order": {"id": LARGE + 1, "to": "ann"}, "express": None})

    found, text = read(client, a, b), page(client, a, b)

    assert found["arguments"]["different"] == [
        {"path": ["order", "id"], "a": LARGE, "b": LARGE + 1}, {"path": ["copies"], "a": 1},
        {"path": ["express"], "b": None},
    ]  # fmt: skip
    assert found["arguments"]["equal"] == [{"path": ["order", "to"], "value": "ann"}]
    assert {fact["name"] for fact in found["facts"] if fact["a"] != fact["b"]} >= {"state", "tags"}
    assert [one["times"]["ran"] for one in found["jobs"]] == [2.5, 2.0]
    assert [(one["type"], one["a"], one["b"]) for one in found["errors"]] == [("ValueError", 1, 0)]
    assert found["jobs"][0]["frames"] == ['File "/srv/shop/mail.py", line 3, in send\ndeliver(order)']
    for part in (str(LARGE + 1), "order.id", "missing", "1 equal value", "/srv/shop/mail.py", f"/errors/{1:016x}"):
        assert part in text
    before, _, folded = text.partition("that do not differ")
    assert ">Priority<" in folded
    assert ">Priority<" not in before


def test_the_list_and_the_page_of_a_job_lead_to_it(client: FlaskClient, database: Database) -> None:
    a, b = failed(database), ended(database, 500_001)

    assert f'href="/jobs/compare?a={a}"' in client.get(f"/jobs/{a}").get_data(as_text=True)
    assert 'formaction="/jobs/compare"' in client.get("/jobs").get_data(as_text=True)
    for query in (f"a={a}", f"a={a}&b=", f"id={a}&id={b}&back=/jobs&once=x"):
        answer = client.get(f"/jobs/compare?{query}")
        assert answer.status_code == 302
        assert answer.headers["Location"] == f"/jobs/compare?a={a}&b={b}"
    assert client.get(f"/jobs/compare.json?a={a}").headers["Location"] == f"/jobs/compare.json?a={a}&b={b}"


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "a is missing"), ("a=0", 400, "a is"), ("a=x", 400, "a is"), ("a=9999999999999999999", 400, "a is"),
        ("a=17&b=18", 404, "17"), ("a={a}&b=18", 404, "18"), ("a=17&b={a}", 404, "17"), ("a=17", 404, "17"),
        ("id={a}", 400, "1 job is selected"), ("id=1&id=2&id=3", 400, "3 jobs are selected"),
        ("id=x&id=2", 400, "id is"),
        ("a={a}&below=x", 400, "below"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(
    client: FlaskClient, database: Database, query: str, status: int, said: str
) -> None:
    number = failed(database)
    for path in ("/jobs/compare", "/jobs/compare.json"):
        answer = client.get(f"{path}?{query.format(a=number)}")
        assert (answer.status_code, said in answer.get_data(as_text=True)) == (status, True), answer.data


def test_a_job_is_equal_to_itself(client: FlaskClient, database: Database) -> None:
    a = failed(database, args={"a": [1, 2]})

    found, text = read(client, a, a), page(client, a, a)

    assert (found["arguments"]["different"], found["arguments"]["complete"], found["same_frames"]) == ([], True, True)
    for part in ("Both are the same job.", "The arguments are equal.", "No option differs.", "at the same place"):
        assert part in text


def test_without_a_success_it_says_how_far_was_searched(
    client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = failed(database)
    assert read(client, a)["search"] == {"job": None, "cursor": None, "looked_back_to": None}
    text = client.get(f"/jobs/compare?a={a}").get_data(as_text=True)
    assert "No other successful run of" in text

    ended(database, 500_001)
    database.connect().execute(
        "INSERT INTO qworker.job_history (id, state, queue, task, args, attempt, priority, crashes, node_losses,"
        " is_hook, enqueued_at, finished_at, ring_day)"
        " SELECT 1000000 * n, 'completed', 'mail', 'other', '{}', 1, 5, 0, 0, false, now(), now(), 1"
        " FROM generate_series(1, 9) AS n"
    )
    monkeypatch.setattr("qworkerd.web.pages.compare.QUICK", 0.0)
    b = failed(database)
    found = read(client, b)
    text = client.get(f"/jobs/compare?a={b}").get_data(as_text=True)
    assert found["search"]["looked_back_to"]
    further = f"/jobs/compare?a={b}&below={found['search']['cursor']}&far=1"
    assert further.replace("&", "&amp;") in text
    assert client.get(further).headers["Location"] == f"/jobs/compare?a={b}&b=500001"


def test_without_the_right_to_payload_nothing_of_it_is_compared(
    make_dashboard: Callable[..., Flask], database: Database
) -> None:
    a = failed(database, "card 4242", args={"card": "4242"}, meta={"cron": "4242"})
    b = ended(database, 500_001, args={"card": "4243"})
    client = make_dashboard(access=lambda _environ: Access("eve", frozenset({VIEW}))).test_client()

    found, text = read(client, a, b), page(client, a, b)

    assert found["arguments"] is None
    for shown in (json.dumps(found), text):
        assert "4242" not in shown
        assert "4243" not in shown
        assert "smtplib" not in shown
        assert "ValueError" in shown
    assert "no right to see them" in text


def test_passwords_are_masked_and_their_difference_is_not_hidden(client: FlaskClient, database: Database) -> None:
    def args(secret: str) -> dict[str, Any]:
        return {
            "password": f"{secret}aaaa", "more": {"password": {"x": f"{secret}bbbb"}},
            "dsn": f"postgresql://u:{secret}cccc@h/db", "list": [{"password": f"{secret}dddd"}],
        }  # fmt: skip

    a, b = failed(database, args=args("hunter2")), ended(database, 500_001, args=args("hunter3"))

    found, text = read(client, a, b), page(client, a, b)

    assert found["arguments"]["different_count"] == 4
    for shown in (json.dumps(found), text):
        assert "hunter" not in shown
        for part in ("aaaa", "bbbb", "cccc", "dddd"):
            assert part not in shown
    assert text.count("They differ in what is masked or not shown.") == 4
    same = read(client, a, a)["arguments"]
    assert "hunter" not in json.dumps(same)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_jobs_contain_is_shown_as_text(client: FlaskClient, database: Database, text: str) -> None:
    values: dict[str, Any] = {"task": text[:200], "queue": text[:200], "tags": [text[:200]]}
    a = failed(database, text, args={text: text, "x": [text]}, **values)
    b = failed(database, f"{text}!", 2, args={text: f"{text}!", "y": 1}, **values)

    for body in (page(client, a, b), client.get(f"/jobs/compare.json?a={a}&b={b}").get_data(as_text=True)):
        assert "<script>alert" not in body.replace('"<script>alert', "")
        assert "\x1b" not in body
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in body
    assert "<img src=x" not in page(client, a, b)
    assert "<script>alert" not in page(client, a, b)


ODD: list[dict[str, Any]] = [
    {"errors": [1, "x", None]}, {"errors": [{"fingerprint": "../x", "type": {}, "message": 1, "traceback": 5}]},
    {"errors": [{"node": "x", "group": 1, "at": "y"}]}, {"errors": [{"node": 2**80, "attempt": 1, "logs": [{}, 1]}]},
    {"meta": [1]}, {"meta": {"cron": {"a": 1}, "copy_of": []}}, {"args": {"": {"": []}}}, {"errors": {"a": 1}},
    {"overrides": {"timeout": {}}},
]  # fmt: skip


@pytest.mark.parametrize("columns", ODD)
def test_rows_edited_by_hand_are_compared(client: FlaskClient, database: Database, columns: dict[str, Any]) -> None:
    if "overrides" in columns:
        columns = {"overrides": json.dumps(columns["overrides"])}
    a, b = failed(database, **columns), failed(database)
    assert read(client, a, b)["b"] == b
    assert page(client, b, a)


def test_large_arguments_are_compared_in_bounded_time(client: FlaskClient, database: Database) -> None:
    a = failed(database, args={"items": [{"n": number} for number in range(45_000)], "text": "x" * 100_000})
    b = failed(database, args={"items": [{"n": -number} for number in range(45_000)], "text": "x" * 99_999 + "y"})
    page(client, a, a)  # what is read is kept
    began = monotonic()

    text = page(client, a, b)

    assert monotonic() - began < 3.0
    assert "only their first 20,000 parts were compared" in text
    assert "more differences are not shown" in text
    assert len(text) < 250_000
    one = failed(database, args={"text": "x" * 20_000 + "a" + "z" * 999})
    two = failed(database, args={"text": "x" * 20_000 + "b" + "z" * 999})
    text = page(client, one, two)
    assert "xazzz" in text
    assert "xbzzz" in text


@pytest.fixture
def usual(database: Database) -> None:
    """A task whose jobs usually wait 70 ms and run for 1.1 s."""
    with connect(database.dsn, "test") as conn:
        Writer(conn).write(
            "mail", "shop.send", succeeded=7, run_seconds=7.0, run_bucket=[56], run_count=[7], wait_seconds=1.0,
            wait_bucket=[40], wait_count=[7],
        )  # fmt: skip


@pytest.mark.usefixtures("usual")
def test_attempts_are_compared_with_what_is_usual(client: FlaskClient, database: Database) -> None:
    now = datetime.now(UTC)
    slow, fast = ended(database, 901, ran=11.0), ended(database, 902, ran=0.11)
    running = job(database, state="running", claimed_at=now, attempt=1)

    found = json.loads(client.get(f"/jobs/{slow}.json").data)

    assert found["typical"]["run"]["count"] == 7
    assert found["typical"]["run"]["p50"] == pytest.approx(1.1, rel=0.1)
    assert found["against"][0]["run"] == pytest.approx(10, rel=0.2)
    text = client.get(f"/jobs/{slow}").get_data(as_text=True)
    assert "\N{MULTIPLICATION SIGN} the median, above p95" in text
    assert "7 attempts of this task ended in this queue" in text
    assert re.search(
        r">0\.0?\d+ \N{MULTIPLICATION SIGN} the median<", client.get(f"/jobs/{fast}").get_data(as_text=True)
    )
    # An attempt that goes on is not compared, and nothing is read for it.
    assert json.loads(client.get(f"/jobs/{running}.json").data)["typical"] is None
    both = page(client, slow, fast)
    assert "job 901: 100 \N{MULTIPLICATION SIGN} as long" in both
    other = failed(database, queue="other", claimed_at=now - timedelta(seconds=3))
    assert "No attempt of this task has been counted" in client.get(f"/jobs/{other}").get_data(as_text=True)


def test_two_jobs_are_selected_in_a_browser(opened: Any, database: Database) -> None:
    a, b = failed(database), failed(database, "another", 2)
    failed(database)
    opened.goto("/jobs")
    button = opened.get_by_role("button", name="Compare two")
    assert button.is_disabled()
    for number in (a, b):
        opened.get_by_label(f"Select job {number}").check()
    assert button.is_enabled()
    with opened.expect_response(lambda answer: "region=list" in answer.url):
        opened.keyboard.press("r")
    button.click()
    opened.wait_for_url("**/jobs/compare?a=*")
    assert sorted(map(int, parse_qs(urlsplit(opened.url).query)["a"] + parse_qs(urlsplit(opened.url).query)["b"])) == [
        a,
        b,
    ]
    opened.get_by_role("link", name="Swap").click()
    opened.wait_for_url(lambda url: "compare" in url)
    assert opened.get_by_role("heading", level=1).inner_text().startswith("Jobs ")


def test_it_works_without_a_script_on_a_small_screen(browser: Any, dashboard: Flask, database: Database) -> None:
    a = failed(database, args={"text": "x" * 300})
    b = ended(database, a + 1)
    with serving(dashboard) as url:
        context = browser.new_context(base_url=url, java_script_enabled=False, viewport={"width": 320, "height": 700})
        tab = context.new_page()
        tab.goto(f"/jobs/{a}")
        tab.get_by_role("button", name="Compare…").click()
        tab.get_by_label("Number of the other job").fill(str(b))
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"**/jobs/compare?a={a}&b={b}")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.get_by_text("that do not differ").click()
        assert tab.get_by_text("Priority", exact=True).is_visible()
        tab.get_by_role("link", name="The last successful run").click()
        tab.wait_for_url(f"**/jobs/compare?a={a}&b={b}")
        tab.goto("/jobs")
        for number in (a, b):
            tab.get_by_label(f"Select job {number}").check()
        tab.get_by_role("button", name="Compare two").click()
        tab.wait_for_url("**/jobs/compare?a=*")
        context.close()


def test_a_reader_compares_and_is_offered_no_action(make_dashboard: Callable[..., Flask], database: Database) -> None:
    a, b = failed(database), ended(database, 500_001)
    client = make_dashboard(access=lambda _environ: Access("eve", READ), read_only=True).test_client()

    text = client.get("/jobs").get_data(as_text=True)
    assert 'formaction="/jobs/compare"' in text
    assert 'method="post"' not in text
    assert 'method="post"' not in page(client, a, b)
    assert client.post("/jobs/compare", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 405
