"""Every action of queues, schedules, tasks and operations in a browser: with and without script, by keys."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from qworker import App
from tests.database import Database
from tests.waiting import until
from tests.web import browser as browsers
from tests.web import realistic
from tests.web.conftest import Rows
from tests.web.shop import shop
from tests.web.test_pages_of_operations import serve

PAGES = (
    "/queues", "/queue?name=mail", "/workers", "/schedules", "/tasks", "/task?name=shop.orders.send_receipt",
    "/operations", "/audit", "/doctor",
)  # fmt: skip
LONG = "very-long-name-without-a-place-to-break" * 4


@pytest.fixture
def dashboard(make_dashboard: Callable[..., Flask], database: Database) -> Iterator[Flask]:
    """The dashboard with the application of a shop, in place of that of the database alone."""
    app: App = shop(database.dsn)
    yield make_dashboard(app)
    app.close()


@pytest.fixture
def without_script(browser: Any, dashboard: Flask) -> Iterator[Any]:
    """A tab whose scripts are switched off."""
    with ExitStack() as stack:
        url = stack.enter_context(browsers.serving(dashboard))
        context = browser.new_context(base_url=url, java_script_enabled=False)
        context.set_default_timeout(30_000)
        stack.callback(context.close)
        yield context.new_page()


def declare(rows: Rows) -> None:
    rows(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES ('nightly-report', 'shop.reports.nightly', '0 3 * * *', 'Europe/Berlin', 1) RETURNING 1"
    )


def available(rows: Rows, queue: str = "mail") -> None:
    rows("INSERT INTO qworker.job (queue, task) VALUES (%s, 'shop.mail.welcome') RETURNING 1", queue)


def notice(tab: Any) -> str:
    """Return what the page says about the last action."""
    found = tab.locator("main > .notice[role=status]:visible")
    found.wait_for()
    return str(found.inner_text())


@pytest.mark.parametrize("kind", ["opened", "without_script"])
def test_a_queue_is_paused_with_a_reason_and_resumed(request: pytest.FixtureRequest, rows: Rows, kind: str) -> None:
    tab = request.getfixturevalue(kind)
    available(rows)
    tab.goto("/queues")
    tab.get_by_role("button", name="Pause mail").click()
    dialog = tab.get_by_role("dialog", name="Pause")
    dialog.get_by_label("Reason").fill("the mail server moves")
    dialog.get_by_role("button", name="Pause").click()
    assert notice(tab).startswith("Queue mail is paused")
    assert rows("SELECT paused_by, pause_reason FROM qworker.queue") == [("anna", "the mail server moves")]
    tab.get_by_text("the mail server moves").wait_for()
    tab.get_by_role("button", name="Resume mail").click()
    assert notice(tab) == "Queue mail is resumed."
    assert rows("SELECT paused_at FROM qworker.queue") == [(None,)]


def test_a_question_is_asked_by_keys_alone_and_can_be_left(opened: Any, rows: Rows) -> None:
    available(rows)
    opened.goto("/queues")
    button = opened.get_by_role("button", name="Pause mail")
    for _ in range(40):
        if button.evaluate("e => e === document.activeElement"):
            break
        opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    dialog = opened.get_by_role("dialog", name="Pause")
    dialog.wait_for()
    opened.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert rows("SELECT count(*) FROM qworker.queue") == [(0,)]
    opened.keyboard.press("Enter")
    opened.keyboard.press("Tab")
    opened.keyboard.type("holidays")
    opened.keyboard.press("Enter")
    assert notice(opened).startswith("Queue mail is paused")
    assert rows("SELECT pause_reason FROM qworker.queue") == [("holidays",)]


def test_a_page_is_not_refreshed_while_a_question_is_open(opened: Any, rows: Rows) -> None:
    available(rows)
    opened.clock.install()
    opened.goto("/queues")
    opened.get_by_role("button", name="Pause mail").click()
    reason = opened.get_by_role("dialog", name="Pause").get_by_label("Reason")
    reason.fill("half a sen")
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.clock.run_for(30_000)
    assert (reason.input_value(), asked) == ("half a sen", [])
    opened.keyboard.press("Escape")
    with opened.expect_response(lambda answer: "region=list" in answer.url):
        opened.clock.run_for(6_000)


@pytest.mark.parametrize("kind", ["opened", "without_script"])
def test_a_schedule_is_paused_resumed_and_run(request: pytest.FixtureRequest, rows: Rows, kind: str) -> None:
    tab = request.getfixturevalue(kind)
    declare(rows)
    tab.goto("/schedules")
    tab.get_by_role("button", name="Pause nightly-report").click()
    dialog = tab.get_by_role("dialog", name="Pause")
    dialog.get_by_label("Reason").fill("stocktaking")
    dialog.get_by_role("button", name="Pause").click()
    assert notice(tab).startswith("Schedule nightly-report is paused")
    tab.get_by_role("button", name="Resume nightly-report").click()
    assert notice(tab).startswith("Schedule nightly-report is resumed")
    tab.get_by_role("button", name="Run now nightly-report").click()
    tab.get_by_role("dialog", name="Run now").get_by_role("button", name="Run now").click()
    until(lambda: rows("SELECT task, queue FROM qworker.job") == [("shop.reports.nightly", "reports")])
    assert [a for (a,) in rows("SELECT action FROM qworker.audit ORDER BY id")] == [
        "schedule.pause", "schedule.resume", "schedule.run"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["opened", "without_script"])
def test_a_node_is_paused_with_a_reason_and_resumed(request: pytest.FixtureRequest, rows: Rows, kind: str) -> None:
    tab, name = request.getfixturevalue(kind), serve(rows)
    tab.goto("/workers")
    tab.get_by_role("button", name=f"Pause {name}").click()
    dialog = tab.get_by_role("dialog", name="Pause")
    dialog.get_by_label("Reason").fill("new kernel")
    dialog.get_by_role("button", name="Pause").click()
    assert notice(tab).startswith(f"Node {name} is paused")
    assert rows("SELECT paused_by, pause_reason FROM qworker.paused_node") == [("anna", "new kernel")]
    assert tab.get_by_text("new kernel").is_visible()
    tab.get_by_role("button", name=f"Resume {name}").click()
    assert notice(tab).startswith(f"Node {name} is resumed")
    assert rows("SELECT count(*) FROM qworker.paused_node") == [(0,)]


@pytest.mark.parametrize("kind", ["opened", "without_script"])
def test_a_form_says_what_is_wrong_keeps_what_was_written_and_enqueues(
    request: pytest.FixtureRequest, rows: Rows, kind: str
) -> None:
    tab = request.getfixturevalue(kind)
    tab.goto("/task?name=shop.orders.send_receipt")
    tab.get_by_label("order_id").fill("7")
    tab.get_by_label("to.street").fill("Main 1")
    tab.get_by_label("due").fill("tomorrow")
    tab.get_by_label("attachments").fill('["a.pdf"]')
    tab.get_by_label("express").select_option("true")
    tab.get_by_role("button", name="Enqueue").click()
    tab.get_by_text("Nothing was enqueued").wait_for()
    assert tab.get_by_label("due").get_attribute("aria-invalid") == "true"
    assert tab.get_by_label("to.city").get_attribute("aria-invalid") == "true"
    assert tab.get_by_label("to.street").input_value() == "Main 1"
    assert rows("SELECT count(*) FROM qworker.job") == [(0,)]
    tab.get_by_label("due").fill("2026-02-03")
    tab.get_by_label("to.city").fill("Bonn")
    tab.get_by_role("button", name="Enqueue").click()
    until(lambda: rows("SELECT count(*) FROM qworker.job") == [(1,)])
    ((args,),) = rows("SELECT args FROM qworker.job")
    assert args == {
        "order_id": 7, "to": {"street": "Main 1", "city": "Bonn", "country": "DE"}, "due": "2026-02-03",
        "attachments": ["a.pdf"], "express": True,
    }  # fmt: skip


def test_all_arguments_can_be_written_as_json(opened: Any, rows: Rows) -> None:
    opened.goto("/task?name=shop.mail.welcome")
    opened.get_by_text("All arguments as JSON instead").click()
    opened.get_by_label("All arguments as one JSON object").fill('{"user_id": 9007199254740993}')
    opened.get_by_role("button", name="Enqueue").click()
    until(lambda: rows("SELECT args ->> 'user_id' FROM qworker.job") == [("9007199254740993",)])


@pytest.mark.parametrize("kind", ["opened", "without_script"])
def test_an_operation_is_stopped(request: pytest.FixtureRequest, rows: Rows, kind: str) -> None:
    tab = request.getfixturevalue(kind)
    ((number,),) = rows(
        "INSERT INTO qworker.operation (action, filter, upper_id, below, actor, expected, done)"
        " VALUES ('retry', 'state:failed', 9, 5, 'anna', 200, 50) RETURNING id"
    )
    tab.goto("/operations")
    tab.get_by_role("row", name=f"{number} retry").get_by_text("50 of 200").wait_for()
    tab.get_by_role("button", name=f"Stop {number}").click()
    tab.get_by_role("dialog", name="Stop").get_by_role("button", name="Stop").click()
    assert notice(tab).startswith(f"Operation {number} is stopped after 50 jobs")
    assert rows("SELECT state FROM qworker.operation") == [("stopped",)]


@pytest.mark.parametrize("kind", ["opened", "without_script"])
@pytest.mark.parametrize("width", [320, 768, 1280, 2560])
def test_no_page_is_wider_than_the_window(
    request: pytest.FixtureRequest, database: Database, rows: Rows, width: int, kind: str
) -> None:
    tab = request.getfixturevalue(kind)
    realistic.fill(database.dsn)
    available(rows, LONG)
    rows("INSERT INTO qworker.series (queue, task) VALUES (%s, %s) RETURNING 1", LONG, LONG)
    rows(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES (%s, %s, '* * * * *', 'UTC', 1) RETURNING 1", LONG, LONG,
    )  # fmt: skip
    rows(
        "INSERT INTO qworker.audit (actor, via, action, target, note) VALUES (%s, 'web', 'queue.pause', '{}', %s)"
        " RETURNING 1", LONG, LONG,
    )  # fmt: skip
    tab.set_viewport_size({"width": width, "height": 800})
    for path in PAGES:
        tab.goto(path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path


def test_two_tabs_do_not_pause_twice(opened: Any, rows: Rows) -> None:
    available(rows)
    opened.goto("/queues")
    other = opened.context.new_page()
    other.goto("/queues")
    for tab in (opened, other):
        tab.get_by_role("button", name="Pause mail").click()
        tab.get_by_role("dialog", name="Pause").get_by_role("button", name="Pause").click()
    assert "was already paused" in notice(other)
    assert rows("SELECT count(*) FROM qworker.audit") == [(1,)]
