"""Requests that are sent twice, to one process or to two, act once."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworkerd.web import Access
from qworkerd.web.access import ALL
from tests.database import Database
from tests.environment import ROOT
from tests.web.conftest import SAME_ORIGIN, Rows
from tests.web.planted import failed, job
from tests.web.shop import shop

JSON = {"Accept": "application/json"} | SAME_ORIGIN


@pytest.fixture
def whole(make_dashboard: Callable[..., Flask], database: Database) -> Iterator[FlaskClient]:
    app = shop(database.dsn)
    yield make_dashboard(app).test_client()
    app.close()


def sent(client: FlaskClient, path: str, header: str | None, **form: Any) -> Any:
    headers = JSON if header is None else JSON | {"Idempotency-Key": header}
    return client.post(path, data=form, headers=headers)


def test_a_key_makes_any_action_act_once(whole: FlaskClient, database: Database, rows: Rows) -> None:
    number = failed(database)
    requests: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("/task/enqueue", {"name": "shop.mail.welcome", "arg.user_id": 7, "key": "k"}, "task = 'shop.mail.welcome'"),
        (f"/jobs/{number}/again", {}, "meta ? 'copy_of'"),
        ("/schedules/run", {"name": "nightly-report"}, "task = 'shop.reports.nightly'"),
    )
    for path, form, new in requests:
        first, second = (sent(whole, path, f"key of {path}", **form).get_json() for _ in range(2))
        assert (first["changed"], second["changed"]) == (True, False), (path, first, second)
        assert rows(f"SELECT count(*) FROM qworker.job WHERE {new}") == [(1,)], path  # noqa: S608
        if "again" not in path:
            assert second["result"]["job"] == first["result"]["job"]
    first, second = (sent(whole, "/jobs/all/retry", "o", q="state:failed").get_json() for _ in range(2))
    assert (first["changed"], second["changed"]) == (True, False)
    assert second["result"]["id"] == first["result"]["id"]
    assert rows("SELECT count(*) FROM qworker.operation") == [(1,)]


def test_an_action_that_is_repeated_by_itself_is_not_with_a_key(
    client: FlaskClient, database: Database, rows: Rows
) -> None:
    failed(database)
    assert sent(client, "/queues/pause", "a", name="mail").get_json()["changed"]
    assert sent(client, "/queues/resume", "b", name="mail").get_json()["changed"]
    again = sent(client, "/queues/pause", "a", name="mail").get_json()
    assert (again["changed"], again["result"]) == (False, {"queues": ["mail"]})
    assert rows("SELECT paused_at FROM qworker.queue") == [(None,)]
    assert sent(client, "/queues/pause", None, name="mail").get_json()["changed"]


def test_a_key_is_not_for_two_requests(client: FlaskClient, database: Database, rows: Rows) -> None:
    one, other = failed(database), failed(database)
    assert sent(client, f"/jobs/{one}/again", "k").status_code == 200
    answer = sent(client, f"/jobs/{other}/again", "k")
    assert answer.status_code == 422
    assert "use another key" in answer.get_json()["error"]
    assert rows("SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'") == [(1,)]


def test_a_key_is_that_of_its_user(make_dashboard: Callable[..., Flask], database: Database, rows: Rows) -> None:
    number = failed(database)
    for user in ("anna", "ben"):
        found = make_dashboard(access=lambda _environ, user=user: Access(user, ALL)).test_client()
        assert sent(found, f"/jobs/{number}/again", "k").get_json()["changed"]
    assert rows("SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'") == [(2,)]


def test_a_request_that_was_refused_can_be_sent_again(client: FlaskClient, database: Database) -> None:
    number = job(database, state="running")
    assert sent(client, f"/jobs/{number}/again", "k").get_json()["changed"] is False
    database.connect().execute("UPDATE qworker.job SET state = 'failed', failed_at = now()")
    assert sent(client, f"/jobs/{number}/again", "k").get_json()["changed"] is True


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x7f", "ä"])
def test_a_key_out_of_bounds_is_refused(client: FlaskClient, database: Database, key: str) -> None:
    answer = sent(client, f"/jobs/{failed(database)}/again", key)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.get_json()["error"]


@pytest.fixture
def served(database: Database) -> Iterator[Callable[[], str]]:
    """Start a process of the dashboard; return its address."""
    env = os.environ | {"QWORKER_DSN": database.dsn, "PYTHONPATH": f"{ROOT / 'queue'}:{ROOT / 'workers'}"}
    with ExitStack() as stack:

        def start() -> str:
            command = [sys.executable, "-m", "qworkerd", "web", "--port", "0"]
            process = stack.enter_context(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            return process.stdout.readline().rsplit(" ", 1)[1].strip()

        yield start


def post(address: str, path: str, form: dict[str, str], headers: dict[str, str]) -> Any:
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", data, JSON | headers)) as answer:
        return json.loads(answer.read())


def test_two_processes_and_a_third_after_them_act_once(
    served: Callable[[], str], database: Database, rows: Rows
) -> None:
    """The same forms and the same keys, sent to all processes at the same time."""
    jobs = [failed(database) for _ in range(6)]
    addresses = [served(), served()]
    requests: list[tuple[str, dict[str, str], dict[str, str]]] = [
        *((f"jobs/{number}/again", {"once": f"form {number}"}, {}) for number in jobs[:3]),
        *((f"jobs/{number}/again", {}, {"Idempotency-Key": f"key {number}"}) for number in jobs[3:]),
        ("jobs/all/again", {"q": "state:failed", "once": "operation"}, {}),
    ]
    with ThreadPoolExecutor(8) as threads:
        found = [
            [threads.submit(post, address, *request) for address in addresses * 2] for request in requests
        ]  # fmt: skip
        answers = [[one.result(30) for one in each] for each in found]
    for request, each in zip(requests, answers, strict=True):
        assert sorted(one["changed"] for one in each) == [False, False, False, True], (request, each)
    assert rows("SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'") == [(6,)]
    assert rows("SELECT count(*) FROM qworker.operation") == [(1,)]
    third = served()
    for request in requests:
        assert post(third, *request)["changed"] is False
    assert rows("SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'") == [(6,)]
