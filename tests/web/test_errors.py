"""The groups of errors."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.error_groups import ErrorGroups
from qworkerd.web import READ, Access
from qworkerd.web.access import VIEW
from tests.database import Database
from tests.web.conftest import SAME_ORIGIN
from tests.web.planted import HOSTILE, failed

JSON = {"Accept": "application/json"} | SAME_ORIGIN
FIRST = f"{1:016x}"


def group(database: Database, message: str = "no such order", number: int = 1, **columns: Any) -> int:
    """Insert a failed job, and count its error; return its id."""
    job = failed(database, message, number, **columns)
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.error_event (fingerprint, at, job, task, queue, error) SELECT j.fingerprint, now(), "
            "j.id, j.task, j.queue, (j.errors -> -1 -> 'group') FROM qworker.job AS j WHERE j.id = %s",
            [job],
        )
        ErrorGroups().fold(conn)
    return job


def listed(client: FlaskClient, **parameters: Any) -> list[str]:
    found = client.get("/errors.json", query_string=parameters)
    assert found.status_code == 200, found.data
    return [one["fingerprint"] for one in json.loads(found.data)["groups"]]


def test_groups_are_listed_with_their_bars(client: FlaskClient, database: Database) -> None:
    group(database)
    group(database, "no such customer", 2)

    assert set(listed(client)) == {FIRST, f"{2:016x}"}
    text = client.get("/errors").get_data(as_text=True)
    assert "no such customer" in text
    assert 'class="sparkline"' in text
    assert "highest 1" in text


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [({"task": "shop.send"}, 1), ({"task": "x"}, 0), ({"queue": "mail"}, 1), ({"queue": "x"}, 0), ({"period": "1h"}, 1),
     ({"state": "muted"}, 0), ({"state": "all"}, 1)],
)  # fmt: skip
def test_groups_are_filtered(
    client: FlaskClient, database: Database, parameters: dict[str, str], expected: int
) -> None:
    group(database)

    assert len(listed(client, **parameters)) == expected


def test_groups_are_read_page_by_page(client: FlaskClient, database: Database) -> None:
    with database.connect() as conn:
        # Many occurred last at the same time.
        conn.execute(
            "INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, queues,"
            " samples) SELECT n, 1, now(), date_trunc('minute', now()) - n / 30 * interval '1.000001 s', 1, 't', 'E',"
            " '{}', '{}'"
            " FROM generate_series(1, 65) AS n"
        )
    found, below = list[str](), dict[str, str]()
    while True:
        page = json.loads(client.get("/errors.json", query_string={"size": "20"} | below).data)
        found += [one["fingerprint"] for one in page["groups"]]
        if page["next"] is None:
            break
        below = {"below": page["next"]}

    assert found == [f"{n:016x}" for n in range(1, 66)]
    text = client.get("/errors?size=20").get_data(as_text=True)
    assert 'rel="next"' in text
    assert 'rel="first"' in client.get("/errors", query_string={"size": "20"} | below).get_data(as_text=True)
    table = client.get("/errors.csv?size=20").get_data(as_text=True).splitlines()
    assert len(table) == 66


def test_a_group_says_who_did_what_to_it(client: FlaskClient, database: Database) -> None:
    group(database)
    group(database, "no such customer", 2)
    client.post(f"/errors/{FIRST}/resolve", data={"note": "fixed in 1.2"}, headers=SAME_ORIGIN)
    client.post(f"/errors/{2:016x}/mute", headers=SAME_ORIGIN)
    client.post("/jobs/all/retry", data={"q": f"fp:{FIRST}"}, headers=SAME_ORIGIN)

    found = json.loads(client.get(f"/errors/{FIRST}.json").data)["audit"]
    text = client.get(f"/errors/{FIRST}").get_data(as_text=True)

    assert [(one["action"], one["actor"], one["note"]) for one in found] == [
        ("operation.retry", "anna", None), ("error.resolve", "anna", "fixed in 1.2")
    ]  # fmt: skip
    assert "What was done by hand" in text
    assert "fixed in 1.2" in text
    assert re.search(r'href="/operations/\d+"', text)


@pytest.mark.parametrize(
    "parameters",
    [{"state": "x"}, {"period": "99y"}, {"size": "3"}, {"task": "x" * 501}, {"below": "7"}, {"below": f"1-{'g' * 16}"},
     {"below": f"{'9' * 18}-{'0' * 16}"}],
)  # fmt: skip
def test_parameters_are_bounded(client: FlaskClient, parameters: dict[str, str]) -> None:
    assert client.get("/errors.json", query_string=parameters).status_code == 400


@pytest.mark.parametrize("fingerprint", ["0" * 16, "z" * 16, "x", "0" * 15, "0" * 17, "A" * 16])
def test_a_group_that_does_not_exist_is_not_found(client: FlaskClient, fingerprint: str) -> None:
    assert client.get(f"/errors/{fingerprint}").status_code == 404
    assert client.post(f"/errors/{fingerprint}/mute", headers=JSON).status_code in {400, 404}


def test_a_group_has_its_jobs_and_the_traceback_of_one(client: FlaskClient, database: Database) -> None:
    jobs = [group(database) for _ in range(3)]

    found = json.loads(client.get(f"/errors/{FIRST}.json").data)
    text = client.get(f"/errors/{FIRST}").get_data(as_text=True)

    assert (found["group"]["count"], found["failed"], found["capped"]) == (3, 3, False)
    assert {row["id"] for row in found["samples"]} == set(jobs)
    first, _, rest = text.partition("With the frames of libraries")
    assert "/srv/shop/mail.py" in first
    assert "smtplib" in rest
    assert f'href="/jobs/all?q=fp:{FIRST}&amp;action=retry"'.replace(":", "%3A") in text or "action=retry" in text


def test_a_group_is_muted_resolved_and_reopened(client: FlaskClient, database: Database) -> None:
    group(database)

    for name, state in (("mute", "muted"), ("resolve", "resolved"), ("reopen", "open")):
        found = json.loads(client.post(f"/errors/{FIRST}/{name}", headers=JSON).data)
        assert (found["changed"], found["result"]["state"]) == (True, state)
        assert listed(client, state=state) == [FIRST]
        again = json.loads(client.post(f"/errors/{FIRST}/{name}", headers=JSON).data)
        assert not again["changed"]
    with database.connect() as conn:
        actions = [row[0] for row in conn.execute("SELECT action FROM qworker.audit ORDER BY id").fetchall()]
    assert actions[:1] == ["error.mute"]


@pytest.mark.parametrize("name", ["mute", "resolve", "reopen"])
def test_a_change_needs_its_right(make_dashboard: Callable[..., Flask], database: Database, name: str) -> None:
    group(database)
    client = make_dashboard(access=lambda _environ: Access("eve", READ | {"job"})).test_client()

    assert client.post(f"/errors/{FIRST}/{name}", headers=JSON).status_code == 403
    assert 'method="post"' not in client.get("/errors").get_data(as_text=True)


def test_the_jobs_of_a_group_are_retried_by_an_operation(client: FlaskClient, database: Database) -> None:
    for _ in range(3):
        group(database)
    group(database, "another", 2)

    wanted = json.loads(client.get(f"/errors/{FIRST}.json").data)["filter"]
    plan = json.loads(client.get("/jobs/all.json", query_string={"q": wanted, "action": "retry"}).data)

    assert plan["count"]["jobs"] == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_what_errors_contain_is_shown_as_text(client: FlaskClient, database: Database, text: str) -> None:
    group(database, text, task=text[:200], queue=text[:200])

    for path in ("/errors", f"/errors/{FIRST}", "/errors?region=list", "/errors.csv"):
        found = client.get(path).get_data(as_text=True)
        if not path.endswith("csv"):
            assert "<script>alert" not in found
            assert "<img src=x" not in found
        assert "\x1b" not in found
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in found
    assert listed(client, task=text[:200].strip()) == ([FIRST] if text == text.strip() else [])


def test_without_the_right_to_payload_no_message_is_seen(
    make_dashboard: Callable[..., Flask], database: Database
) -> None:
    group(database, "card 4242")
    client = make_dashboard(access=lambda _environ: Access("eve", frozenset({VIEW}))).test_client()

    for path in ("/errors", "/errors.json", "/errors.csv", f"/errors/{FIRST}", f"/errors/{FIRST}.json"):
        text = client.get(path).get_data(as_text=True)
        assert "4242" not in text
        assert "ValueError" in text
