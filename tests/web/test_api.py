"""What the documentation says of the API: every action with its right and its fields, called by a program."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from qworkerd.web import Access
from qworkerd.web.access import READ, VIEW
from tests.database import Database
from tests.environment import ROOT
from tests.web.conftest import Rows
from tests.web.planted import failed
from tests.web.shop import shop

WORDS = ("retry", "cancel", "discard", "again", "run_now", "move")
JSON = {"Accept": "application/json"}
TABLE = re.search(r"\| POST \| right \| fields \|\n.*?\n(.*?)\n\n", (ROOT / "docs/dashboard.md").read_text(), re.DOTALL)


def documented() -> dict[str, tuple[str, str]]:
    """Return the rights and the fields of each path, with ID and FINGERPRINT for its parts."""
    assert TABLE
    found = {}
    for line in TABLE[1].splitlines():
        where, right, fields = (cell.strip() for cell in line.strip("|").split("|"))
        paths = re.findall(r"`(/[^`]+)`", where)
        if "and so on" in where:
            paths = [paths[0].removesuffix("retry") + word for word in WORDS]
        for path in paths:
            word = path.rpartition("/")[2]
            first = re.match(r"`([a-z.]+)`", right)
            name = f"job.{word}" if first is None else first[1] + word * first[1].endswith(".")
            found[path] = (name, fields)
    return found


PATHS = documented()


def test_every_action_is_documented(dashboard: Flask) -> None:
    routes = {
        re.sub(r"<[^>]*number>", "ID", rule.rule).replace("<string(length=16):fingerprint>", "FINGERPRINT")
        for rule in dashboard.url_map.iter_rules() if "POST" in (rule.methods or ())
    }  # fmt: skip
    assert set(PATHS) == routes


@pytest.fixture
def call(make_dashboard: Callable[..., Flask], database: Database) -> Any:
    """Call an action as a program with these rights."""
    application, number = shop(database.dsn), failed(database)
    database.connect().execute(
        "INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type,"
        " message, queues, samples) VALUES (171, 1, now(), now(), 1, 'shop.mail.welcome', 'E', 'm', '{mail}', '{1}')"
    )

    def call(path: str, rights: frozenset[str], *, by_token: bool = True, **form: Any) -> Any:
        access = Access("bot", rights, by_token=by_token)
        client = make_dashboard(application, access=lambda _environ: access).test_client()
        path = path.replace("ID", str(number)).replace("FINGERPRINT", "00000000000000ab")
        return client.post(path, data={"id": number} | form, headers=JSON)

    yield call
    application.close()


@pytest.mark.parametrize("path", PATHS)
def test_an_action_needs_the_right_that_is_documented_and_no_other(call: Any, path: str) -> None:
    right = PATHS[path][0]
    form = {"name": "mail", "node": "1", "q": "state:failed", "queue": "video"}
    others = {one for one, _ in PATHS.values()} - {right}
    assert call(path, READ | others, **form).status_code == 403
    assert call(path, READ | {right}, by_token=False, **form).status_code == 403
    answer = call(path, READ | {right}, **form)
    assert answer.status_code in {200, 400, 404, 422}, answer.text
    assert answer.is_json
    if path in {"/jobs/ID/stack", "/jobs/ID/log"}:
        assert "right" in call(path, frozenset({VIEW, right}), **form).json["error"]


#: Fields with which an action does something, and what the audit then has.
CALLS = (
    ("/jobs/retry", {"note": "n"}, "job.retry"),
    ("/jobs/ID/retry", {"args": '{"user_id": 8}', "note": "n"}, "job.edit"),
    ("/jobs/ID/again", {"note": "n"}, "job.again"),
    ("/jobs/all/discard", {"q": "state:failed", "upper_id": "999999", "rate": "0.5", "note": "n"}, "operation.discard"),
    ("/errors/FINGERPRINT/mute", {"note": "n"}, "error.mute"),
    ("/queues/pause", {"name": "mail", "reason": "n"}, "queue.pause"),
    ("/task/enqueue", {"name": "shop.mail.welcome", "arg.user_id": "7", "queue": "a", "priority": "1", "delay": "9"},
     "job.enqueue"),
    ("/task/enqueue", {"name": "shop.mail.welcome", "arg.json": '{"user_id": 7}'}, "job.enqueue"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "form", "action"), CALLS, ids=[f"{path} {action}" for path, _, action in CALLS])
def test_its_fields_are_those_that_are_documented(
    call: Any, rows: Rows, path: str, form: dict[str, str], action: str
) -> None:
    fields = PATHS[path][1]
    known = set(re.findall(r"`([a-z_.A-Z]+)`", fields)) | {"arg.user_id" if "arg.NAME" in fields else ""}
    assert set(form) <= known
    answer = call(path, READ | {PATHS[path][0], "job.edit"}, **form)
    assert (answer.status_code, answer.json and answer.json.get("changed")) == (200, True), answer.text
    assert set(answer.json) == {"message", "changed", "result"}
    ((found, note),) = rows("SELECT action, note FROM qworker.audit")
    assert (found, note) == (action, "n" if "n" in form.values() else None)
    if "delay" in form:
        query = "SELECT queue, priority, state FROM qworker.job WHERE task = 'shop.mail.welcome'"
        assert ("a", 1, "scheduled") in rows(query)
    if "rate" in form:
        assert rows("SELECT filter, rate, upper_id FROM qworker.operation") == [("state:failed", 0.5, 999_999)]
