"""Names and values of arguments complete a filter: by the address, and in a browser."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.filters import parse
from qworkerd.web import Access
from qworkerd.web.access import VIEW
from tests.database import Database
from tests.web.planted import HOSTILE, job


def offered(client: FlaskClient, word: str, rest: str = "") -> list[str]:
    answer = client.get("/jobs/arguments.json", query_string={"word": word, "rest": rest})
    assert answer.status_code == 200, answer.data
    return [one["text"] for one in json.loads(answer.data)["offers"]]


def test_they_are_those_of_jobs_that_match_the_other_terms(client: FlaskClient, database: Database) -> None:
    job(database, queue="mail", args={"user": {"id": 42}})
    job(database, queue="video", args={"user": {"id": 7}})

    assert offered(client, "args.") == ["args.user."]
    assert offered(client, "args.user.id:", "queue:mail") == ["args.user.id:42"]
    assert sorted(offered(client, "args.user.id:")) == ["args.user.id:42", "args.user.id:7"]
    # A filter that cannot be read says nothing of what matches.
    assert offered(client, "args.user.id:", "queue:") == offered(client, "queue:ma") == []


def test_nothing_is_offered_without_the_right_to_payload(
    make_dashboard: Callable[..., Flask], database: Database
) -> None:
    job(database, args={"card": "4242"})
    client = make_dashboard(access=lambda _environ: Access("eve", frozenset({VIEW}))).test_client()

    assert offered(client, "args.") == offered(client, "args.card:") == []
    assert "data-arguments" not in client.get("/jobs").get_data(as_text=True)
    nobody = make_dashboard(access=lambda _environ: Access("eve", frozenset())).test_client()
    assert nobody.get("/jobs/arguments.json?word=args.card:").status_code == 403


def test_passwords_are_never_offered(client: FlaskClient, database: Database) -> None:
    job(
        database,
        args={"password": "hunter2", "dsn": "postgresql://u:hunter2@h/db", "in": {"PassWord": "hunter2"}, "n": 1},
    )

    assert sorted(offered(client, "args.")) == ["args.dsn:", "args.in.", "args.n:"]
    for word in ("args.password:", "args.dsn:", "args.in.", "args.in.PassWord:"):
        assert offered(client, word) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_read_back_or_are_not_offered(client: FlaskClient, database: Database, text: str) -> None:
    number = job(database, args={"value": text, text: "x"})

    for word in (
        *offered(client, "args.value:"),
        *(end for one in offered(client, "args.") for end in offered(client, one)),
    ):
        (term,) = parse(word).terms
        assert term.values[0].operand in {text, "x"}
        found = json.loads(client.get("/jobs.json", query_string={"q": word}).data)
        assert [row["id"] for row in found["jobs"]] == [number]
    typeable = text.isprintable() and len(text) <= 200
    assert bool(offered(client, "args.value:")) == typeable


@pytest.mark.parametrize(("word", "rest"), [("x" * 2_049, ""), ("args.a:", "x" * 2_049), ("args.\0", "")])
def test_what_is_sent_is_bounded(client: FlaskClient, word: str, rest: str) -> None:
    assert client.get("/jobs/arguments.json", query_string={"word": word, "rest": rest}).status_code == 400


def test_viewers_share_what_is_read(client: FlaskClient, database: Database) -> None:
    job(database, args={"n": 1})
    assert offered(client, "args.n:") == ["args.n:1"]
    job(database, args={"n": 2})
    # Of the same filter, the sample of half a minute ago is as good.
    assert offered(client, "args.n:") == ["args.n:1"]
    assert len(offered(client, "args.n:", "queue:mail")) == 2


def test_a_filter_is_completed_in_a_browser(opened: Any, database: Database) -> None:
    wanted = job(database, args={"user": {"name": 'ann "x" lee'}, "n": 1})
    job(database, args={"user": {"name": "bob"}, "n": 1})
    job(database, queue="other", args={"user": {"name": "eve"}})
    opened.goto("/jobs")
    box = opened.get_by_label("Filter")
    box.fill("queue:mail ")
    box.press_sequentially("args.us")
    for name in ("user", "name"):
        opened.get_by_role("option", name=name, exact=True).wait_for()
        opened.keyboard.press("ArrowDown")
        opened.keyboard.press("Enter")
    assert box.input_value() == "queue:mail args.user.name:"
    opened.get_by_role("option", name="bob").wait_for()
    assert opened.get_by_role("option", name="eve").count() == 0
    box.press_sequentially("ann")
    opened.get_by_role("option", name='ann "x" lee').wait_for()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("Enter")
    assert box.input_value() == 'queue:mail args.user.name:"ann \\"x\\" lee" '
    opened.keyboard.press("Escape")
    opened.keyboard.press("Enter")
    opened.wait_for_url("**/jobs?q=queue*")
    assert opened.locator(".jobs tbody tr").count() == 1
    opened.get_by_role("link", name=str(wanted), exact=True).wait_for()
