"""The page of one job, and what can be done with it."""

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker import App
from qworker.job_logs import JobLogs
from qworker.stacks import JobStacks
from qworkerd.web import READ, Access
from qworkerd.web.access import VIEW
from tests.database import Database
from tests.waiting import until
from tests.web.conftest import SAME_ORIGIN
from tests.web.planted import HOSTILE, LARGE, failed, job

JSON = {"Accept": "application/json"} | SAME_ORIGIN


def read(client: FlaskClient, number: int) -> Any:
    found = client.get(f"/jobs/{number}.json")
    assert found.status_code == 200, found.data
    return json.loads(found.data)


def page(client: FlaskClient, number: int) -> str:
    found = client.get(f"/jobs/{number}")
    assert found.status_code == 200
    return found.get_data(as_text=True)


def arguments(database: Database, number: int) -> Any:
    with database.connect() as conn:
        row = conn.execute("SELECT args FROM qworker.job WHERE id = %s", [number]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("number", ["0", "17", str(2**63 - 1), str(2**63), "9" * 400, "-1", "x", "1.5", "17/../18"])
def test_a_job_that_does_not_exist_is_not_found(client: FlaskClient, number: str) -> None:
    assert client.get(f"/jobs/{number}").status_code == 404
    assert client.get(f"/jobs/{number}.json").status_code == 404


def test_a_failed_job_shows_its_error_with_the_frames_of_the_application_first(
    client: FlaskClient, database: Database
) -> None:
    number = failed(database)

    text = page(client, number)

    first, _, rest = text.partition("With the frames of libraries")
    assert "/srv/shop/mail.py" in first
    assert "smtplib" not in first
    assert "smtplib" in rest
    assert f'href="/errors/{1:016x}"' in text


def test_attempts_have_their_waits_and_runs(client: FlaskClient, database: Database) -> None:
    number = failed(database, enqueued_at="2026-11-27T12:00:00+00:00", claimed_at="2026-11-27T12:00:03+00:00")

    (attempt,) = read(client, number)["attempts"]

    assert (attempt["end"], attempt["began_at"]) == ("failed", "2026-11-27T12:00:03+00:00")
    assert '<svg class="attempt"' in page(client, number)


def test_of_large_arguments_the_beginning_is_shown(client: FlaskClient, database: Database) -> None:
    items = [{"number": number, "password": "hidden 42"} for number in range(12_000)]
    number = job(database, args={"items": items, "last": "the end"})

    text = page(client, number)

    assert "&#34;number&#34;: 0," in text
    assert "&#34;number&#34;: 11999," not in text
    assert "the rest is in the JSON of this page" in text
    assert "hidden 42" not in text
    assert len(text) < 250_000
    assert read(client, number)["job"]["args"]["last"] == "the end"
    small = job(database, args={"text": "x" * 90_000})
    assert "the rest is in the JSON" not in page(client, small)


def test_an_attempt_that_goes_on_is_shown_with_its_beginning(client: FlaskClient, database: Database) -> None:
    began = datetime.now(UTC) - timedelta(seconds=90)
    due = datetime.now(UTC) + timedelta(hours=1)
    running = job(database, state="running", claimed_at=began, attempt=1)
    scheduled = job(database, state="scheduled", run_at=due)

    assert f">since {began:%Y-%m-%d %H:%M:%S} UTC</time>" in page(client, running)
    assert f">due {due:%Y-%m-%d %H:%M:%S} UTC</time>" in page(client, scheduled)


def test_a_job_says_why_it_does_not_run(client: FlaskClient, database: Database, dashboard: Flask) -> None:
    number = job(database)
    dashboard.extensions["qworker_source"].acting.pause("mail", reason="the server is full")

    assert "paused" in [reason["cause"] for reason in read(client, number)["reasons"]]
    assert "the server is full" in page(client, number)


def test_what_was_done_by_hand_is_shown_with_its_reason(client: FlaskClient, database: Database) -> None:
    number = failed(database)
    client.post(f"/jobs/{number}/retry", data={"note": "the disk was full"}, headers=SAME_ORIGIN)

    (entry,) = read(client, number)["audit"]

    assert (entry["action"], entry["actor"], entry["note"]) == ("job.retry", "anna", "the disk was full")
    assert "the disk was full" in page(client, number)


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("failed", {"retry", "discard", "again", "move"}), ("available", {"cancel", "move"}),
        ("scheduled", {"cancel", "move", "run_now"}), ("running", {"cancel", "stack", "log"}),
    ],
)  # fmt: skip
def test_a_job_offers_what_can_be_done_in_its_state(
    client: FlaskClient, database: Database, state: str, offered: set[str]
) -> None:
    number = job(database, state=state, run_at="2099-01-01" if state == "scheduled" else None)

    text = page(client, number)

    known = {"retry", "discard", "again", "move", "cancel", "run_now", "stack", "log"}
    assert {name for name in known if f'action="/jobs/{number}/{name}"' in text} == offered


def test_a_user_without_rights_is_offered_nothing(make_dashboard: Callable[..., Flask], database: Database) -> None:
    number = failed(database)
    client = make_dashboard(access=lambda _environ: Access("eve", READ)).test_client()

    assert 'method="post"' not in page(client, number)
    assert 'method="post"' not in client.get("/jobs").get_data(as_text=True)


def test_a_copy_is_shown_after_it_was_enqueued(client: FlaskClient, database: Database) -> None:
    number = failed(database, args={"order": LARGE})

    found = client.post(f"/jobs/{number}/again", headers=SAME_ORIGIN)

    assert found.status_code == 303
    copy = int(found.headers["Location"].rsplit("/", 1)[1])
    assert arguments(database, copy) == {"order": LARGE}
    assert f'href="/jobs/{number}"' in page(client, copy)


@pytest.mark.parametrize("address", ["/jobs/{}/again", "/jobs/again", "/jobs/all/again"])
def test_a_form_that_is_sent_twice_makes_one_copy(client: FlaskClient, database: Database, address: str) -> None:
    number = failed(database)
    where = "/jobs/all?q=state:failed&action=again" if "all" in address else "/jobs" if "{}" not in address else None
    shown = client.get(where or f"/jobs/{number}").get_data(as_text=True)
    found = re.search(r'name="once" value="([0-9a-f]{32})"', shown)
    assert found is not None
    form = {"id": str(number), "q": "state:failed", "once": found[1]}

    answers = [client.post(address.format(number), data=form, headers=JSON).get_json() for _ in range(2)]

    assert [answer["changed"] for answer in answers] == [True, False], answers
    assert answers[1]["message"].startswith("This form was sent before.")
    assert answers[1]["result"] == answers[0]["result"]
    # The next page has another form, which acts again.
    assert f'name="once" value="{found[1]}"' not in client.get(where or f"/jobs/{number}").get_data(as_text=True)
    other = client.post(address.format(number), data=form | {"once": "another"}, headers=JSON).get_json()
    assert other["changed"]
    with database.connect() as conn:
        table = "operation" if "all" in address else "job WHERE meta ? 'copy_of'"
        assert conn.execute(f"SELECT count(*) FROM qworker.{table}").fetchone() == (2,)  # noqa: S608


def test_an_action_that_is_too_late_says_so(client: FlaskClient, database: Database) -> None:
    number = failed(database)
    first = json.loads(client.post(f"/jobs/{number}/retry", headers=JSON).data)
    second = json.loads(client.post(f"/jobs/{number}/retry", headers=JSON).data)

    assert (first["changed"], second["changed"]) == (True, False)
    assert "only failed jobs can be retried" in second["message"]


def test_arguments_are_edited_exactly(client: FlaskClient, database: Database) -> None:
    number = failed(database, args={"order": LARGE, "name": "ä\N{RIGHT-TO-LEFT OVERRIDE}<b>", "price": 1.10})
    wanted = {"order": LARGE + 1, "name": "</textarea>", "list": [1, {"a": None}]}

    assert str(LARGE) in page(client, number)
    found = client.post(f"/jobs/{number}/retry", data={"args": json.dumps(wanted)}, headers=JSON)

    assert json.loads(found.data)["changed"]
    assert arguments(database, number) == wanted
    with database.connect() as conn:
        assert conn.execute("SELECT action FROM qworker.audit").fetchall() == [("job.edit",)]


def test_the_field_has_the_arguments_as_they_are(client: FlaskClient, database: Database) -> None:
    stored = {"text": "\N{RIGHT-TO-LEFT OVERRIDE}\x1b\u2028 </textarea>\n", "number": LARGE, "*": [1]}
    number = failed(database, args=stored)

    field = page(client, number).partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0]

    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        field = field.replace(entity, character)
    assert json.loads(field) == stored


def test_a_password_that_is_masked_stays_as_it_is(client: FlaskClient, database: Database) -> None:
    stored = {"dsn": "postgresql://u:secret@h/db", "password": "hunter2", "more": [{"password": "x"}], "n": 1}
    number = failed(database, args=stored)

    text = page(client, number)
    assert "secret" not in text
    assert "hunter2" not in text
    edited = {"dsn": "postgresql://u:***@h/db", "password": "***", "more": [{"password": "***"}], "n": 2}
    client.post(f"/jobs/{number}/retry", data={"args": json.dumps(edited)}, headers=JSON)

    assert arguments(database, number) == stored | {"n": 2}


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", "1", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, '{"a": "\\u0000"}', '{"a": "\\ud800"}',
     '{"a":' * 5_000 + "1" + "}" * 5_000, json.dumps({"a": "x" * 999_000}) + " " * 2_000],
)  # fmt: skip
def test_arguments_that_cannot_be_stored_are_refused(client: FlaskClient, database: Database, text: str) -> None:
    number = failed(database, args={"a": 1})

    found = client.post(f"/jobs/{number}/retry", data={"args": text}, headers=JSON)

    assert found.status_code == 400, found.data
    assert arguments(database, number) == {"a": 1}


def test_the_application_checks_edited_arguments(make_dashboard: Callable[..., Flask], database: Database) -> None:
    app = App(database.dsn)

    @app.task(name="shop.send")
    def send(order: int, copies: int = 1) -> None: ...

    number = failed(database, args={"order": 1})
    client = make_dashboard(app).test_client()

    found = client.post(f"/jobs/{number}/retry", data={"args": '{"ordr": 2}'}, headers=JSON)
    assert found.status_code == 400
    assert "missing a required argument: 'order'" in json.loads(found.data)["error"]
    assert client.post(f"/jobs/{number}/retry", data={"args": '{"order": 2}'}, headers=JSON).status_code == 200
    assert arguments(database, number) == {"order": 2}


def test_editing_needs_the_rights_to_see_and_to_edit(make_dashboard: Callable[..., Flask], database: Database) -> None:
    number = failed(database, args={"a": 1})

    for rights in ({VIEW, "job.retry"}, {VIEW, "payload", "job.retry"}, {VIEW, "job"}):
        client = make_dashboard(access=lambda _environ, r=frozenset(rights): Access("eve", r)).test_client()
        assert "<textarea" not in page(client, number)
        assert client.post(f"/jobs/{number}/retry", data={"args": '{"a": 2}'}, headers=JSON).status_code == 400
    assert arguments(database, number) == {"a": 1}


def test_without_the_right_to_payload_a_job_shows_nothing_of_it(
    make_dashboard: Callable[..., Flask], database: Database
) -> None:
    number = failed(
        database, "card 4242 is refused", args={"card": "4242"}, progress={"fraction": 0.5, "text": "card 4242"},
        meta={"user": "4242"},
    )  # fmt: skip
    client = make_dashboard(access=lambda _environ: Access("eve", frozenset({VIEW, "job"}))).test_client()

    for text in (page(client, number), client.get(f"/jobs/{number}.json").get_data(as_text=True)):
        assert "4242" not in text
        assert "ValueError" in text
    assert client.post(f"/jobs/{number}/stack", headers=JSON).status_code == 400


def test_the_stack_of_a_job_that_does_not_run_is_refused_with_the_reason(
    client: FlaskClient, database: Database
) -> None:
    number = job(database)

    found = client.post(f"/jobs/{number}/stack", headers=JSON)

    assert found.status_code == 400
    assert "only a running job has a stack" in json.loads(found.data)["error"]


def test_requests_for_stacks_are_few_at_a_time(
    client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworkerd.web.pages.job._stack_requests", threading.BoundedSemaphore(1))
    monkeypatch.setattr("qworkerd.web.pages.job.STACK_TIMEOUT", 0.1)
    from qworkerd.web.pages import job as module

    number = job(database)
    with module._stack_requests:
        assert "try again" in client.post(f"/jobs/{number}/stack", headers=JSON).get_data(as_text=True)
    assert "only a running job has a stack" in client.post(f"/jobs/{number}/stack", headers=JSON).get_data(as_text=True)


def test_a_trace_is_linked_if_its_address_is_known(
    client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    number = job(database, meta={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    odd = job(database, meta={"traceparent": "00-<script>-x-y"})

    assert trace in page(client, number)
    assert "traces.example" not in page(client, number)
    monkeypatch.setenv("QWORKER_TRACE_URL", "https://traces.example/{trace_id}")
    assert f'href="https://traces.example/{trace}"' in page(client, number)
    assert "script&gt;" not in page(client, odd)
    monkeypatch.setenv("QWORKER_TRACE_URL", "javascript:alert({trace_id})")
    assert "javascript" not in page(client, number)


def test_jobs_with_the_same_key_are_linked(client: FlaskClient, database: Database) -> None:
    first, second = job(database, task="shop.send", holds_key=True), job(database, task="shop.print", holds_key=True)
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('shop.send', 'order-1', %s), "
            "('shop.print', 'order-1', %s)",
            [first, second],
        )

    text = page(client, first)

    assert "order-1" in text
    assert f'href="/jobs/{second}"' in text


ODD: list[dict[str, Any]] = [
    {"errors": [{}]}, {"errors": [1, "x", None]},
    {"errors": [{"at": "yesterday", "attempt": [], "type": {}, "message": 1}]},
    {"errors": [{"traceback": 5, "logs": "x", "fingerprint": "../x"}]}, {"progress": {"fraction": "x", "text": []}},
    {"errors": [{"attempt": 1, "logs": [{}, 1, {"timestamp": 3, "level": "<b>", "event": ["x"], "exception": 7}]}]},
    {"meta": {"cron": {"a": 1}, "copy_of": "17", "traceparent": 5}}, {"args": {"": {"": []}}},
    {"errors": [{"phase": 1, "ran": "x", "maxrss_mib": None}]}, {"errors": {"a": 1}}, {"progress": [1]}, {"meta": [1]},
    {"errors": [{"ran": 1e308, "at": "2026-11-27T12:00:00"}]},
]  # fmt: skip


@pytest.mark.parametrize("columns", ODD)
def test_a_row_that_was_edited_by_hand_is_shown(
    client: FlaskClient, database: Database, columns: dict[str, Any]
) -> None:
    number = job(database, state="failed", failed_at=datetime.now(UTC), **columns)

    page(client, number)
    read(client, number)
    assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize("text", HOSTILE)
def test_logs_are_shown_as_text(client: FlaskClient, database: Database, text: str) -> None:
    line = {"timestamp": "2026-11-27T12:00:01Z", "level": text, "event": text, text: text, "exception": text}
    error = {
        "at": "2026-11-27T12:00:05Z",
        "attempt": 1,
        "type": text,
        "message": text,
        "traceback": text,
        "logs": [line],
    }
    number = job(database, state="failed", failed_at=datetime.now(UTC), errors=[error])

    found = page(client, number)

    assert "<script>alert" not in found
    assert "<img src=x" not in found
    assert "\x1b" not in found
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in found


def test_the_stack_of_a_running_job_is_shown(client: FlaskClient, database: Database) -> None:
    node_id, number = running(database)

    def answer() -> None:
        with database.connect() as conn:
            until(lambda: conn.execute("SELECT FROM qworker.stack_request").fetchall())
            JobStacks().store(
                conn, node_id, number, worker="0", pid=42, ran=1.5, stacks='File "<b>", line 3 in send\x1b'
            )

    node = threading.Thread(target=answer)
    node.start()
    found = client.post(f"/jobs/{number}/stack", headers=SAME_ORIGIN)
    node.join()

    text = found.get_data(as_text=True)
    assert found.status_code == 200
    assert "line 3 in send" in text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "pid 42" in text


@pytest.mark.parametrize(
    "path",
    ["/", "/queues", "/queue?name=mail", "/jobs", "/jobs/completions.json", "/jobs/all", "/jobs/{number}", "/errors",
     "/workers", "/schedules", "/tasks", "/operations", "/audit"],
)  # fmt: skip
def test_a_page_borrows_one_connection_at_a_time(
    make_dashboard: Callable[..., Flask], database: Database, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("qworkerd.web.source.READERS", 1)
    monkeypatch.setattr("qworkerd.web.source.POOL_TIMEOUT", 0.2)
    number = failed(database)
    job(database, state="running", claimed_at=datetime.now(UTC))
    client = make_dashboard().test_client()

    assert client.get(path.format(number=number)).status_code == 200


def test_a_job_leads_to_the_form_of_its_task(make_dashboard: Callable[..., Flask], database: Database) -> None:
    app = App(database.dsn)

    @app.task(name="shop.send")
    def send(order: int) -> None: ...

    number, other = failed(database, args={"order": LARGE}), failed(database, task="shop.gone")
    client = make_dashboard(app).test_client()

    assert f'href="/task?name=shop.send&amp;job={number}"' in page(client, number)
    assert str(LARGE) in client.get(f"/task?name=shop.send&job={number}").get_data(as_text=True)
    assert "/task?name=shop.gone&amp;job=" not in page(client, other)


def running(database: Database) -> tuple[int, int]:
    """Insert a node and a job that it runs; return their ids."""
    with database.connect() as conn:
        row = conn.execute(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds) "
            "VALUES ('web1', '1', '{mail}', 1, 30) RETURNING id"
        ).fetchone()
    assert row is not None
    return row[0], job(database, state="running", node=row[0], token=7, attempt=1, claimed_at=datetime.now(UTC))


def write_line(database: Database, number: int, event: str) -> None:
    line = {"timestamp": "2026-11-27T12:00:01Z", "level": "info", "event": event}
    with database.connect() as conn:
        JobLogs().write(conn, number, 7, 1, count=1, lines=json.dumps([line]))


def test_the_log_of_a_running_job_is_followed(client: FlaskClient, database: Database) -> None:
    _, number = running(database)

    first = client.post(f"/jobs/{number}/log", headers=SAME_ORIGIN).get_data(as_text=True)
    write_line(database, number, "half of it is done <b>")
    again = client.post(f"/jobs/{number}/log?region=lines", headers=SAME_ORIGIN).get_data(as_text=True)
    found = json.loads(client.post(f"/jobs/{number}/log", headers=JSON).data)

    assert "No lines yet." in first
    assert "half of it is done &lt;b&gt;" in again
    assert "<html" not in again
    assert found["attempts"][0]["lines"][0]["event"] == "half of it is done <b>"
    rest = json.loads(client.post(f"/jobs/{number}/log", data={"cursor": found["cursor"]}, headers=JSON).data)
    assert rest["attempts"] == []
    assert client.post(f"/jobs/{number}/log", data={"cursor": "x"}, headers=JSON).status_code == 400


def test_a_log_needs_its_rights(make_dashboard: Callable[..., Flask], database: Database) -> None:
    _, number = running(database)

    for rights, status in (({VIEW, "payload"}, 403), ({VIEW, "job"}, 400)):
        client = make_dashboard(access=lambda _environ, r=frozenset(rights): Access("eve", r)).test_client()
        assert client.post(f"/jobs/{number}/log", headers=JSON).status_code == status
