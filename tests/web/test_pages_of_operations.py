"""The pages of queues, workers, schedules, tasks, operations, audit and doctor: parameters, actions and rights."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker import App
from qworkerd.web.access import READ, VIEW, Access
from tests.database import Database
from tests.waiting import until
from tests.web import realistic
from tests.web.conftest import SAME_ORIGIN, Rows
from tests.web.shop import shop

LISTS = ("queues", "workers", "schedules", "tasks", "operations", "audit", "doctor")
HOSTILE = (
    "/ ? # %", "../..", "\u202etxt.exe", "<script>alert(1)</script>", '"onmouseover=x', "x" * 200, "a b\tc", "=1+1",
    "&amp;'",
)  # fmt: skip


@pytest.fixture
def application(database: Database) -> Iterator[App]:
    app = shop(database.dsn)
    yield app
    app.close()


@pytest.fixture
def whole(make_dashboard: Callable[..., Flask], application: App) -> FlaskClient:
    """The dashboard with the application of the shop."""
    return make_dashboard(application).test_client()


def post(client: FlaskClient, path: str, **form: str) -> tuple[int, Any]:
    """Act as a program does; return the status and the JSON."""
    headers = {**SAME_ORIGIN, "Accept": "application/json"}
    answer = client.post(path, data=form, headers=headers)
    return answer.status_code, json.loads(answer.data)


def declare(rows: Rows, name: str = "nightly-report", task: str = "shop.reports.nightly") -> None:
    rows(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES (%s, %s, '0 3 * * *', 'Europe/Berlin', 1) RETURNING 1",
        name, task,
    )  # fmt: skip


def serve(rows: Rows, node: int = 41, queues: str = "{mail}") -> str:
    """Register a node; return its name."""
    rows(
        "INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds)"
        " VALUES (%s, %s, '1', %s, 2, 600) RETURNING 1",
        node, f"web{node}:7", queues,
    )  # fmt: skip
    return f"web{node}:7"


@pytest.mark.parametrize("name", LISTS)
def test_every_list_is_html_json_and_csv_empty_and_full(client: FlaskClient, database: Database, name: str) -> None:
    for fill in (False, True):
        if fill:
            realistic.fill(database.dsn)
            client.post("/queues/resume", data={"name": "x"}, headers=SAME_ORIGIN)  # lets shared answers be made again
        page = client.get(f"/{name}")
        assert (page.status_code, page.mimetype) == (200, "text/html"), page.get_data(as_text=True)[:2_000]
        assert json.loads(client.get(f"/{name}.json").data)
        table = client.get(f"/{name}.csv")
        assert table.mimetype == "text/csv"
        assert len(next(csv.reader(io.StringIO(table.get_data(as_text=True))))) > 3


REGIONS = {
    "/queues": ["list"], "/queue?name=mail": ["now", "charts", "tasks"], "/workers": ["nodes", "deaths"],
    "/schedules": ["list"], "/tasks": ["list"], "/task?name=shop.mail.welcome": ["numbers"], "/operations": ["list"],
    "/operations/1": ["state"], "/audit": ["list"], "/doctor": ["findings"],
}  # fmt: skip


@pytest.mark.parametrize("path", REGIONS)
def test_each_region_of_a_page_is_sent_alone_and_stays_while_nothing_changes(
    whole: FlaskClient, database: Database, path: str
) -> None:
    realistic.fill(database.dsn)
    ((number,),) = database.connect().execute("SELECT min(id) FROM qworker.operation").fetchall()
    address = path.replace("/operations/1", f"/operations/{number}")
    if path == "/doctor":
        until(lambda: json.loads(whole.get("/doctor.json").data)["examined"])
    page = whole.get(address).get_data(as_text=True)
    for region in REGIONS[path]:
        assert f'id="region-{region}"' in page
        alone = f"{address}{'&' if '?' in address else '?'}region={region}"
        answer = whole.get(alone)
        assert answer.status_code == 200
        assert b"<html" not in answer.data
        if path in ("/schedules", "/tasks", "/audit", "/queues"):
            again = whole.get(alone, headers={"If-None-Match": answer.headers["ETag"]})
            assert again.status_code == 304


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/queue", "name=mail&period=1y"), ("/queue", ""), ("/queue", "name=" + "x" * 501), ("/queue", "name=a%00b"),
        ("/task", ""), ("/task", "name=x&job=-1"), ("/task", "name=" + "y" * 9_999), ("/tasks", "period=0"),
        ("/workers", "period=forever"), ("/operations", "below=-1"), ("/operations", "below=1e9"),
        ("/operations", "below=99999999999999999999"), ("/operations", "size=1000000"),
        ("/operations", "running=maybe"),
        ("/audit", "job=0"), ("/audit", "job=x"), ("/audit", "since=yesterday"), ("/audit", "until=" + "1" * 50),
        ("/audit", "size=3"), ("/audit", "actor=" + "z" * 501), ("/audit", "below=0x10"),
    ],
)  # fmt: skip
def test_a_parameter_out_of_bounds_is_refused(client: FlaskClient, path: str, parameter: str) -> None:
    for suffix in ("", ".json"):
        answer = client.get(f"{path}{suffix}?{parameter}")
        assert answer.status_code == 400, answer.get_data(as_text=True)[:500]


@pytest.mark.parametrize("path", ["/queue?name=nothing", "/task?name=nothing", "/operations/7"])
def test_what_does_not_exist_is_not_found(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get("/operations/99999999999999999999").status_code == 404


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_and_its_links_lead_to_it(client: FlaskClient, rows: Rows, name: str) -> None:
    rows("INSERT INTO qworker.job (queue, task) VALUES (%s, 'x') RETURNING 1", name)
    rows("INSERT INTO qworker.series (queue, task) VALUES (%s, %s) RETURNING 1", name, name)
    declare(rows, name, name)
    rows(
        "INSERT INTO qworker.audit (actor, via, action, target, note) VALUES (%s, 'web', 'queue.pause',"
        " jsonb_build_object('queues', jsonb_build_array(%s::text)), %s) RETURNING 1",
        name, name, name,
    )  # fmt: skip
    rows(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state)"
        " VALUES (%s, %s, ARRAY[%s], 1, 60, jsonb_build_object('workers', jsonb_build_array(jsonb_build_object("
        " 'worker', 1, 'job', 7, 'task', %s::text, 'phase', %s::text)))) RETURNING 1",
        *[name] * 5,
    )  # fmt: skip
    for path in ("/queues", "/workers", "/schedules", "/tasks", "/audit"):
        answer = client.get(path)
        assert answer.status_code == 200
        text = re.sub(r'<input type="hidden"[^>]*>', "", answer.get_data(as_text=True))
        for evil in ("<script>alert", '"onmouseover', "\u202e"):
            assert evil not in text, path
    page = client.get("/queues").get_data(as_text=True)
    address = unescape(page.partition('<a href="/queue?')[2].partition('"')[0])
    found = client.get(f"/queue.json?{address}")
    assert found.status_code == 200, found.data
    assert client.get("/queue.json", query_string={"name": name}).status_code == 200
    assert client.get("/task.json", query_string={"name": name}).status_code == 200
    cells = [cell for row in csv.reader(io.StringIO(client.get("/audit.csv").get_data(as_text=True))) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]


def test_a_queue_is_paused_with_a_reason_and_resumed(client: FlaskClient, rows: Rows) -> None:
    status, done = post(client, "/queues/pause", name="mail", reason="holidays")
    assert (status, done["changed"]) == (200, True)
    assert rows("SELECT paused_by, pause_reason FROM qworker.queue") == [("anna", "holidays")]
    assert "holidays" in client.get("/queues").get_data(as_text=True)
    again = post(client, "/queues/pause", name="mail", reason="another")
    assert (again[0], again[1]["changed"]) == (200, False)
    assert rows("SELECT pause_reason FROM qworker.queue") == [("holidays",)]
    assert post(client, "/queues/resume", name="mail")[1]["changed"]
    assert not post(client, "/queues/resume", name="mail")[1]["changed"]
    recorded = rows("SELECT action, actor, via, address FROM qworker.audit ORDER BY id")
    assert recorded == [("queue.pause", "anna", "web", "127.0.0.1"), ("queue.resume", "anna", "web", "127.0.0.1")]


@pytest.mark.parametrize("name", ["", "a,b", "x" * 501, "a\nb", "a\0b", " a"])
def test_a_name_that_no_queue_can_have_is_refused(client: FlaskClient, rows: Rows, name: str) -> None:
    assert post(client, "/queues/pause", name=name)[0] == 400
    assert rows("SELECT count(*) FROM qworker.queue") == [(0,)]


def test_a_schedule_is_paused_run_and_resumed(whole: FlaskClient, rows: Rows) -> None:
    declare(rows)
    assert post(whole, "/schedules/pause", name="nightly-report", reason="migration")[1]["changed"]
    assert "migration" in whole.get("/schedules").get_data(as_text=True)
    status, done = post(whole, "/schedules/run", name="nightly-report", key="k")
    assert (status, done["changed"]) == (200, True)
    again = post(whole, "/schedules/run", name="nightly-report", key="k")
    assert (again[1]["changed"], again[1]["result"]) == (False, done["result"])
    assert rows("SELECT task, queue, meta ->> 'run_by' FROM qworker.job") == [
        ("shop.reports.nightly", "reports", "anna")
    ]
    assert post(whole, "/schedules/resume", name="nightly-report")[1]["changed"]
    actions = [action for (action,) in rows("SELECT action FROM qworker.audit ORDER BY id")]
    assert actions == ["schedule.pause", "schedule.run", "schedule.resume"]
    for path in ("pause", "resume", "run"):
        assert post(whole, f"/schedules/{path}", name="nothing")[0] == 400


def test_a_node_is_paused_with_a_reason_and_resumed(client: FlaskClient, rows: Rows) -> None:
    name = serve(rows)
    status, done = post(client, "/workers/pause", node="41", reason="new kernel")
    assert (status, done["changed"], done["result"]) == (200, True, {"node": 41, "paused": True})
    assert rows("SELECT node, paused_by, pause_reason FROM qworker.paused_node") == [(41, "anna", "new kernel")]
    page = client.get("/workers").get_data(as_text=True)
    assert "Paused" in page
    assert "new kernel" in page
    assert "/workers/pause" not in page
    (node,) = json.loads(client.get("/workers.json").data)["nodes"]
    assert (node["paused"]["by"], node["paused"]["reason"]) == ("anna", "new kernel")
    assert post(client, "/workers/pause", node=name, reason="another")[1]["changed"] is False
    assert rows("SELECT pause_reason FROM qworker.paused_node") == [("new kernel",)]
    rows("INSERT INTO qworker.depth VALUES (now(), 'mail', 5, 0, 0, 0, 0, 1, true) RETURNING 1")
    for path in ("/queues", "/queue?name=mail"):
        assert "All live nodes that serve this queue are paused" in client.get(path).get_data(as_text=True)
    (queue,) = json.loads(client.get("/queues.json").data)["queues"]
    assert (queue["workers"], queue["nodes"], queue["drain_seconds"]) == (0, [name], None)
    assert post(client, "/workers/resume", node="41")[1]["changed"]
    assert rows("SELECT action, actor, via, target, note FROM qworker.audit ORDER BY id") == [
        ("node.pause", "anna", "web", {"nodes": [name], "node_ids": [41]}, "new kernel"),
        ("node.resume", "anna", "web", {"nodes": [name], "node_ids": [41]}, None),
    ]
    assert len(json.loads(client.get("/audit.json", query_string={"node": name}).data)["entries"]) == 2
    assert not json.loads(client.get("/audit.json", query_string={"node": "web"}).data)["entries"]


def test_a_node_that_is_unknown_or_dead_is_not_paused(client: FlaskClient, rows: Rows) -> None:
    serve(rows)
    rows("UPDATE qworker.node SET heartbeat_at = now() - interval '11 min' WHERE id = 41 RETURNING 1")
    for node, why in (("42", "node '42' not found"), ("41", "its last heartbeat was 11m ago"), ("", "node")):
        status, answer = post(client, "/workers/pause", node=node)
        assert status == 400
        assert why in answer["error"]
    assert 'action="/workers/pause"' not in client.get("/workers").get_data(as_text=True)
    assert rows("SELECT count(*) FROM qworker.paused_node") == [(0,)]


def test_a_request_with_a_key_pauses_a_node_once(client: FlaskClient, rows: Rows) -> None:
    serve(rows)
    headers = {**SAME_ORIGIN, "Accept": "application/json", "Idempotency-Key": "deploy-7"}

    def pause() -> Any:
        return client.post("/workers/pause", data={"node": "41"}, headers=headers).get_json()

    assert pause()["changed"]
    assert post(client, "/workers/resume", node="41")[1]["changed"]
    assert (again := pause())["changed"] is False
    assert again["result"] == {"nodes": ["web41:7"], "node_ids": [41]}
    assert rows("SELECT count(*) FROM qworker.paused_node") == [(0,)]


def test_a_form_that_is_sent_twice_runs_a_schedule_once_and_another_one_again(whole: FlaskClient, rows: Rows) -> None:
    declare(rows, "cart-reminder", "shop.mail.remind")
    page = whole.get("/schedules").get_data(as_text=True)
    key = page.partition('name="key" value="')[2].partition('"')[0]
    for _ in range(2):
        assert post(whole, "/schedules/run", name="cart-reminder", key=key)[0] == 200
    assert rows("SELECT count(*) FROM qworker.job") == [(1,)]
    page = whole.get("/schedules").get_data(as_text=True)
    other = page.partition('name="key" value="')[2].partition('"')[0]
    assert other != key
    assert post(whole, "/schedules/run", name="cart-reminder", key=other)[1]["changed"]
    assert rows("SELECT count(*) FROM qworker.job") == [(2,)]


def test_without_the_application_a_schedule_cannot_be_run(client: FlaskClient, rows: Rows) -> None:
    declare(rows)
    page = client.get("/schedules").get_data(as_text=True)
    assert "Only the database is known here" in page
    assert "Run now" not in page
    status, answer = post(client, "/schedules/run", name="nightly-report")
    assert status == 400
    assert "start the dashboard with the application" in answer["error"]


def test_a_form_enqueues_once_and_is_recorded(whole: FlaskClient, rows: Rows) -> None:
    form = {
        "name": "shop.mail.welcome",
        "key": "k",
        "arg.user_id": "9007199254740993",
        "queue": "slow",
        "priority": "9",
    }
    status, done = post(whole, "/task/enqueue", **form)
    assert (status, done["changed"]) == (200, True)
    assert rows("SELECT task, queue, priority, args FROM qworker.job") == [
        ("shop.mail.welcome", "slow", 9, {"user_id": 9_007_199_254_740_993})
    ]
    again = post(whole, "/task/enqueue", **form)
    assert (again[1]["changed"], again[1]["result"]["job"]) == (False, done["result"]["job"])
    assert post(whole, "/task/enqueue", **form | {"arg.user_id": "8"})[1]["changed"]  # back, and other arguments
    assert rows("SELECT count(*) FROM qworker.job") == [(2,)]
    recorded = rows("SELECT action, actor, via, jobs, target ->> 'task' FROM qworker.audit ORDER BY id LIMIT 1")
    assert recorded == [("job.enqueue", "anna", "web", 1, "shop.mail.welcome")]


def test_a_task_with_a_unique_key_keeps_it(whole: FlaskClient, rows: Rows) -> None:
    form = {"name": "shop.orders.capture_payment", "arg.order_id": "7", "arg.amount_cents": "100"}
    first = post(whole, "/task/enqueue", **form, key="a")
    second = post(whole, "/task/enqueue", **form, key="b")
    assert (first[1]["changed"], second[1]["changed"]) == (True, False)
    assert first[1]["result"]["job"] == second[1]["result"]["job"]
    assert rows("SELECT count(*) FROM qworker.job") == [(1,)]


def test_a_refused_form_is_shown_again_with_what_was_written(whole: FlaskClient, rows: Rows) -> None:
    form = {
        "name": "shop.orders.send_receipt", "arg.order_id": "0", "arg.to.street": "<b>Main</b>", "arg.to.city": "",
        "arg.due": "soon", "queue": "slow",
    }  # fmt: skip
    answer = whole.post("/task/enqueue", data=form, headers=SAME_ORIGIN)
    page = answer.get_data(as_text=True)
    assert answer.status_code == 422
    assert "Nothing was enqueued" in page
    assert page.count('aria-invalid="true"') == 3
    assert "is not a date as in 2026-01-31" in page
    assert 'value="&lt;b&gt;Main&lt;/b&gt;"' in page
    assert 'value="slow"' in page
    assert "/task/enqueue?region" not in page
    status, refused = post(whole, "/task/enqueue", **form | {"arg.due": "", "arg.to.city": "Bonn"})
    assert (status, list(refused["problems"])) == (422, ["order_id"])
    assert rows("SELECT count(*) FROM qworker.job") == [(0,)]


@pytest.mark.parametrize(
    "options", [{"queue": "a,b"}, {"queue": "x" * 201}, {"priority": "10"}, {"priority": "-1"}, {"delay": "1e9"}]
)
def test_options_out_of_bounds_are_problems_of_the_form(
    whole: FlaskClient, rows: Rows, options: dict[str, str]
) -> None:
    status, answer = post(whole, "/task/enqueue", name="shop.mail.welcome", **{"arg.user_id": "7"}, **options)
    assert (status, list(answer["problems"])) == (422, [""])
    assert rows("SELECT count(*) FROM qworker.job") == [(0,)]


def test_the_form_can_begin_with_the_arguments_of_a_job(whole: FlaskClient, application: App) -> None:
    job = application.get_task("shop.mail.welcome").enqueue(41, template="x")
    page = whole.get(f"/task?name=shop.mail.welcome&job={job.id}").get_data(as_text=True)
    assert "&#34;user_id&#34;: 41" in page
    assert whole.get(f"/task?name=shop.mail.newsletter&job={job.id}").status_code == 404
    assert whole.get("/task?name=shop.mail.welcome&job=999").status_code == 404


def test_who_may_not_see_arguments_does_not_see_them_in_the_form(
    make_dashboard: Callable[..., Flask], application: App
) -> None:
    job = application.get_task("shop.mail.welcome").enqueue(41, template="secret-template")
    access = Access("eve", frozenset({"view", "job"}))
    client = make_dashboard(application, access=lambda _environ: access).test_client()
    page = client.get(f"/task?name=shop.mail.welcome&job={job.id}").get_data(as_text=True)
    assert "secret-template" not in page


def test_a_task_is_described(whole: FlaskClient, client: FlaskClient, rows: Rows) -> None:
    assert b'role="search"' not in whole.get("/tasks").data
    page = whole.get("/task?name=shop.orders.capture_payment").get_data(as_text=True)
    for part in ("Safe to run again", "order_id: int", "by its arguments", "30s", 'name="arg.order_id"'):
        assert part in page
    found = json.loads(whole.get("/task.json?name=shop.orders.send_receipt").data)
    assert [field["name"] for field in found["fields"]][:3] == ["order_id", "to.street", "to.city"]
    rows("INSERT INTO qworker.series (queue, task) VALUES ('mail', 'shop.mail.welcome') RETURNING 1")
    other = client.get("/task?name=shop.mail.welcome").get_data(as_text=True)
    assert "Only the database is known here" in other
    assert "Enqueue a job" not in other


def operation(rows: Rows, state: str = "running") -> int:
    ((number,),) = rows(
        "INSERT INTO qworker.operation (action, filter, upper_id, below, actor, state, expected, done)"
        " VALUES ('retry', 'state:failed', 9, 5, 'anna', %s, 200, 50) RETURNING id",
        state,
    )
    return int(number)


def test_an_operation_shows_its_progress_and_is_stopped_once(client: FlaskClient, rows: Rows) -> None:
    number = operation(rows)
    found = json.loads(client.get(f"/operations/{number}.json").data)
    assert (found["share"], found["handled"], found["state"]) == (0.25, 50, "running")
    assert "25.0%" in client.get("/operations").get_data(as_text=True)
    assert post(client, f"/operations/{number}/stop")[1]["changed"]
    assert not post(client, f"/operations/{number}/stop")[1]["changed"]
    assert rows("SELECT state FROM qworker.operation") == [("stopped",)]
    assert rows("SELECT action FROM qworker.audit") == [("operation.stop",)]
    assert post(client, f"/operations/{operation(rows, 'completed')}/stop")[0] == 400
    assert post(client, "/operations/4242/stop")[0] == 400


def test_lists_are_read_page_by_page(client: FlaskClient, rows: Rows) -> None:
    for _ in range(45):
        operation(rows, "completed")
    rows(
        "INSERT INTO qworker.audit (actor, via, action, target) SELECT 'anna', 'cli', 'queue.pause', '{}'"
        " FROM generate_series(1, 45) RETURNING 1"
    )
    for name, key in (("operations", "operations"), ("audit", "entries")):
        seen: list[int] = []
        below = None
        for _ in range(3):
            query = {"size": "20"} | ({} if below is None else {"below": str(below)})
            found = json.loads(client.get(f"/{name}.json", query_string=query).data)
            seen += [entry["id"] for entry in found[key]]
            below = found["next_below"]
        assert below is None
        assert len(seen) == 45
        assert seen == sorted(set(seen), reverse=True)


def test_the_audit_is_filtered(client: FlaskClient, rows: Rows) -> None:
    rows(
        "INSERT INTO qworker.audit (actor, via, action, target) VALUES ('anna', 'cli', 'job.retry', '{\"jobs\": [7]}'),"
        " ('bob', 'web', 'queue.pause', '{\"queues\": [\"mail\"]}'),"
        " ('bob', 'web', 'schedule.run', '{\"schedules\": [\"s\"]}')"
        " RETURNING 1"
    )
    for query, number in (
        ({}, 3), ({"actor": "bob"}, 2), ({"action": "job"}, 1), ({"action": "queue.pause"}, 1), ({"job": "7"}, 1),
        ({"queue": "mail"}, 1), ({"schedule": "s"}, 1), ({"since": "2020-01-01"}, 3), ({"until": "2020-01-01"}, 0),
        ({"actor": "' OR 1=1 --"}, 0),
    ):  # fmt: skip
        found = json.loads(client.get("/audit.json", query_string=query).data)
        assert len(found["entries"]) == number, query


ACTIONS = {
    "queue.pause": ("/queues/pause", {"name": "mail"}),
    "queue.resume": ("/queues/resume", {"name": "mail"}),
    "schedule.run": ("/schedules/run", {"name": "nightly-report"}),
    "schedule.pause": ("/schedules/pause", {"name": "nightly-report"}),
    "schedule.resume": ("/schedules/resume", {"name": "nightly-report"}),
    "node.pause": ("/workers/pause", {"node": "41"}),
    "node.resume": ("/workers/resume", {"node": "41"}),
    "operation.stop": ("/operations/1/stop", {}),
    "job.enqueue": ("/task/enqueue", {"name": "shop.mail.welcome", "arg.user_id": "7"}),
}


@pytest.mark.parametrize("right", ACTIONS)
def test_an_action_needs_its_right_and_a_page_of_the_same_site(
    make_dashboard: Callable[..., Flask], application: App, rows: Rows, right: str
) -> None:
    path, form = ACTIONS[right]
    declare(rows)
    serve(rows)
    others = frozenset(ACTIONS) - {right}
    for access in (Access("eve", READ), Access("eve", READ | others)):
        client = make_dashboard(application, access=lambda _environ, access=access: access).test_client()
        assert client.post(path, data=form, headers=SAME_ORIGIN).status_code == 403
    allowed = make_dashboard(application, access=lambda _environ: Access("bob", READ | {right})).test_client()
    assert allowed.post(path, data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert allowed.get(path).status_code in {404, 405}
    frozen = make_dashboard(application, read_only=True).test_client()
    assert frozen.post(path, data=form, headers=SAME_ORIGIN).status_code == 403
    counts = "SELECT (SELECT count(*) FROM qworker.job) + (SELECT count(*) FROM qworker.queue) + (SELECT count(*) FROM"
    assert rows(f"{counts} qworker.audit)") == [(0,)]
    answer = allowed.post(path, data=form, headers=SAME_ORIGIN)
    assert answer.status_code == 303, answer.get_data(as_text=True)[:500]


def test_who_may_only_see_finds_no_buttons(make_dashboard: Callable[..., Flask], application: App, rows: Rows) -> None:
    declare(rows)
    serve(rows)
    operation(rows)
    rows("INSERT INTO qworker.job (queue, task) VALUES ('mail', 'x') RETURNING 1")
    client = make_dashboard(application, access=lambda _environ: Access("eve", READ)).test_client()
    for path in (
        "/queues",
        "/queue?name=mail",
        "/schedules",
        "/workers",
        "/operations",
        "/operations/1",
        "/task?name=shop.mail.welcome",
    ):
        assert b'method="post"' not in client.get(path).data, path


def test_a_node_of_another_version_may_report_anything(client: FlaskClient, rows: Rows) -> None:
    for state in (
        {}, {"workers": 7}, {"workers": ["x", {}, {"job": "x", "ran": 1e300, "left": "soon", "rss_mib": "much"}]},
        {"last_death": {"worker": "x"}}, {"workers": [{"worker": 1, "job": 2**62, "ran": True, "phase": None}]},
    ):  # fmt: skip
        rows(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state, heartbeat_at)"
            " VALUES ('n', 'v', '{mail}', 0, 1, %s, now() - interval '1 h') RETURNING 1",
            json.dumps(state),
        )
    page = client.get("/workers")
    assert page.status_code == 200
    assert page.get_data(as_text=True).count("Silent for") == 5
    assert client.get("/workers.csv").status_code == 200


def test_the_doctor_shows_findings_with_evidence_and_remedy(client: FlaskClient, rows: Rows) -> None:
    rows("INSERT INTO qworker.job (queue, task, enqueued_at) VALUES ('mail', 'x', now() - interval '1 h') RETURNING 1")
    until(lambda: json.loads(client.get("/doctor.json").data)["findings"])
    found = json.loads(client.get("/doctor.json").data)
    page = client.get("/doctor").get_data(as_text=True)
    for finding in found["findings"]:
        assert finding["documentation"] in page
    assert "Evidence" in page


@pytest.mark.parametrize("name", ["queues", "tasks", "schedules"])
def test_a_long_list_is_narrowed_by_a_part_of_a_name(whole: FlaskClient, rows: Rows, name: str) -> None:
    many = "FROM generate_series(1, 700) AS n RETURNING 1"
    rows(f"INSERT INTO qworker.series (queue, task) SELECT 'q', 'task ' || n {many}")
    rows(f"INSERT INTO qworker.job (queue, task) SELECT 'queue ' || n, 'x' {many}")
    rows(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        f" SELECT 'schedule ' || n, 'x', '* * * * *', 'UTC', 1 {many}"
    )
    page = whole.get(f"/{name}").get_data(as_text=True)
    assert page.count("<tr>") == 501
    assert "more are not shown" in page
    assert len(json.loads(whole.get(f"/{name}.json").data)[name]) >= 700
    assert len(json.loads(whole.get(f"/{name}.json?find=%20699").data)[name]) == 1
    nothing = whole.get(f"/{name}", query_string={"find": "<b>"}).get_data(as_text=True)
    assert "No name contains this" in nothing
    assert "<b>" not in nothing
    assert whole.get(f"/{name}", query_string={"find": "x" * 501}).status_code == 400


def test_a_filter_tells_nothing_to_a_user_without_the_right(
    make_dashboard: Callable[..., Flask], client: FlaskClient, rows: Rows
) -> None:
    secret = "eve@shop.example"
    ((number,),) = rows(
        "INSERT INTO qworker.operation (action, filter, upper_id, below, actor, error)"
        " VALUES ('retry', %s, 1, 1, 'a', %s) RETURNING id",
        f"queue:mail -args.to:{secret} message:{secret}", f"key {secret} exists",
    )  # fmt: skip
    rows(
        "INSERT INTO qworker.audit (actor, via, action, target)"
        " SELECT 'a', 'web', 'operation.retry', jsonb_build_object('operation', id, 'filter', filter)"
        " FROM qworker.operation RETURNING 1"
    )
    viewer = make_dashboard(access=lambda _environ: Access("eve", frozenset({VIEW, "operation"}))).test_client()
    for path in ("/operations", f"/operations/{number}", "/audit"):
        for suffix in ("", ".json", ".csv", "?region=list", "?region=state"):
            answer = viewer.get(path + suffix)
            if answer.status_code == 200:
                # A long word may be broken at its parts.
                body = answer.get_data(as_text=True).replace("<wbr>", "")
                assert secret not in body, path + suffix
                assert "queue:mail -args.to:hidden message:hidden" in body, path + suffix
        assert secret in client.get(path).get_data(as_text=True).replace("<wbr>", "")
    _, stopped = post(viewer, f"/operations/{number}/stop")
    assert stopped["changed"]
    assert secret not in str(stopped)
