"""Jobs and errors in a real browser: filters, actions on many jobs, editing, keys, and without JavaScript."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from tests.database import Database
from tests.waiting import until
from tests.web import browser as browsers
from tests.web.planted import HOSTILE, LARGE, failed, job
from tests.web.test_errors import group
from tests.web.test_job import running, write_line


def states(database: Database) -> list[str]:
    with database.connect() as conn:
        return [str(row[0]) for row in conn.execute("SELECT state FROM qworker.jobs ORDER BY id").fetchall()]


def test_a_filter_is_completed_by_keys_and_by_the_names_that_are_known(opened: Any, database: Database) -> None:
    with database.connect() as conn:
        conn.execute("INSERT INTO qworker.series (queue, task) VALUES ('mail', 'shop.send'), ('video', 'shop.cut')")
    wanted = job(database, queue="video")
    job(database)
    opened.goto("/jobs")
    opened.keyboard.press("/")
    box = opened.get_by_label("Filter")

    box.press_sequentially("qu")
    opened.get_by_role("option", name="queue").wait_for()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("Enter")
    assert box.input_value() == "queue:"
    box.press_sequentially("vi")
    opened.get_by_role("option", name="video").wait_for()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("Tab")
    assert box.input_value() == "queue:video "
    opened.keyboard.press("Escape")
    opened.keyboard.press("Enter")

    opened.wait_for_url("**/jobs?q=queue*")
    assert opened.locator(".jobs tbody tr").count() == 1
    opened.get_by_role("link", name=str(wanted), exact=True).wait_for()


def test_a_view_is_saved_in_the_browser(opened: Any, database: Database) -> None:
    opened.goto("/jobs?q=queue:mail&order=oldest&below=5")
    opened.get_by_role("button", name="Save view").click()
    opened.goto("/jobs")
    opened.get_by_role("link", name="queue:mail").click()
    opened.wait_for_url("**/jobs?q=queue%3Amail&order=oldest")
    opened.get_by_role("button", name="Delete the view queue:mail").click()
    assert opened.get_by_role("link", name="queue:mail").count() == 0


def test_selected_jobs_are_cancelled_after_a_question(opened: Any, database: Database) -> None:
    for _ in range(3):
        job(database)
    opened.goto("/jobs?q=queue:mail")
    boxes = opened.locator(".jobs tbody input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(2).check()
    opened.get_by_text("With 2 selected:").wait_for()
    opened.get_by_role("button", name="Cancel…").click()
    opened.get_by_role("dialog", name="Cancel the selected jobs").get_by_role("button", name="Cancel").click()

    opened.get_by_text("2 jobs cancelled").wait_for()
    assert states(database) == ["cancelled", "available", "cancelled"]
    assert "q=queue" in opened.url


def test_a_selection_is_not_lost_when_the_list_is_refreshed(opened: Any, database: Database) -> None:
    number = job(database)
    opened.goto("/jobs")
    opened.locator(".jobs tbody input[type=checkbox]").check()
    newer = job(database)
    opened.locator("h1").click()
    shown = opened.get_by_label(f"Select job {newer}", exact=True)

    def refreshed() -> bool:
        # Within a second of the first one, viewers share its answer.
        opened.keyboard.press("r")
        opened.wait_for_timeout(200)
        return bool(shown.is_visible())

    until(refreshed)

    assert opened.get_by_label(f"Select job {number}", exact=True).is_checked()
    assert not opened.get_by_label(f"Select job {newer}", exact=True).is_checked()


def test_all_that_match_become_an_operation_that_is_stopped(opened: Any, database: Database) -> None:
    for _ in range(7):
        failed(database)
    opened.goto("/jobs?q=queue:mail")
    opened.get_by_role("link", name="Act on all that match…").click()
    assert opened.get_by_role("region", name="Some of the jobs").locator("tbody tr").count() == 5
    opened.get_by_label("At most this number of jobs per second").fill("1")
    opened.get_by_label("Why, for the audit").fill("the shop is up again")
    opened.get_by_role("button", name="Retry 7 jobs").click()

    opened.wait_for_url("**/operations/*")
    opened.get_by_role("button", name="Stop…").click()
    opened.get_by_role("dialog", name="Stop").get_by_role("button", name="Stop").click()
    until(lambda: _operation(database) == "stopped")


def _operation(database: Database) -> str:
    with database.connect() as conn:
        row = conn.execute("SELECT state FROM qworker.operation").fetchone()
    return "" if row is None else str(row[0])


def test_arguments_are_edited_and_the_job_is_retried(opened: Any, database: Database) -> None:
    number = failed(database, args={"order": LARGE, "copies": 1})
    opened.goto(f"/jobs/{number}")
    opened.get_by_text("Edit the arguments and retry").click()
    box = opened.get_by_label("Arguments, as JSON")
    box.fill(box.input_value().replace('"copies": 1', '"copies": 2'))
    opened.get_by_role("button", name="Retry with these arguments").click()

    opened.get_by_text(f"Job {number} has been retried with the edited arguments.").wait_for()
    with database.connect() as conn:
        row = conn.execute("SELECT state, args FROM qworker.job").fetchone()
    assert row == ("available", {"order": LARGE, "copies": 2})


def test_arguments_are_copied_where_the_browser_has_no_clipboard(opened: Any, database: Database) -> None:
    opened.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        "document.addEventListener('copy', () => (window.copied = document.activeElement.value));"
    )
    opened.goto(f"/jobs/{failed(database, args={'order': LARGE})}")
    arguments = opened.get_by_label("Arguments", exact=True)
    arguments.locator("..").get_by_role("button", name="Copy").click()
    opened.get_by_role("button", name="Copied").wait_for()
    assert opened.evaluate("window.copied") == arguments.inner_text()
    assert str(LARGE) in arguments.inner_text()


def test_two_tabs_retry_the_same_job_once(opened: Any, database: Database) -> None:
    number = failed(database)
    other = opened.context.new_page()
    for tab in (opened, other):
        tab.goto(f"/jobs/{number}")
    for tab in (opened, other):
        tab.get_by_role("button", name="Retry", exact=True).click()

    opened.get_by_text("1 job retried.").wait_for()
    other.get_by_text("only failed jobs can be retried").wait_for()


def test_a_list_is_read_and_acted_on_by_keys_alone(opened: Any, database: Database) -> None:
    first, second = failed(database), failed(database)
    opened.goto("/")
    opened.keyboard.press("g")
    opened.keyboard.press("j")
    opened.wait_for_url("**/jobs")
    opened.keyboard.press("j")
    opened.keyboard.press("x")
    assert opened.get_by_label(f"Select job {second}", exact=True).is_checked()
    opened.get_by_role("button", name="Retry").focus()
    opened.keyboard.press("Enter")
    opened.get_by_text("1 job retried.").wait_for()
    opened.keyboard.press("j")
    opened.keyboard.press("j")
    opened.keyboard.press("Enter")

    opened.wait_for_url(f"**/jobs/{first}")


def test_a_group_of_errors_is_resolved_and_its_jobs_are_retried(opened: Any, database: Database) -> None:
    group(database)
    opened.goto("/errors")
    opened.get_by_role("link", name="ValueError").click()
    opened.get_by_role("img", name="Failed attempts").wait_for()
    opened.get_by_role("button", name="Resolve").click()
    opened.get_by_text("The group is resolved").wait_for()
    opened.get_by_role("link", name="Retry 1…").click()
    opened.get_by_role("button", name="Retry 1 job").click()
    opened.wait_for_url("**/operations/*")


def test_pages_work_without_javascript(browser: Any, dashboard: Flask, database: Database) -> None:
    number = failed(database, args={"n": 1})
    with browsers.serving(dashboard) as url:
        context = browser.new_context(base_url=url, java_script_enabled=False)
        tab = context.new_page()
        tab.goto("/jobs")
        assert tab.locator(".settings").is_hidden()
        tab.get_by_label("Filter").fill("state:failed")
        tab.get_by_role("button", name="Search").click()
        tab.get_by_label(f"Select job {number}", exact=True).check()
        tab.get_by_role("button", name="Discard…").click()
        tab.get_by_role("dialog", name="Discard the selected jobs").get_by_role("button", name="Discard").click()
        tab.get_by_text("1 job discarded.").wait_for()
        tab.goto(f"/jobs/{number}")
        tab.get_by_role("button", name="Run a copy").click()
        tab.get_by_text(f"is a copy of job {number}").wait_for()
        context.close()
    assert states(database) == ["discarded", "available"]


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_no_page_is_wider_than_the_window(opened: Any, database: Database, width: int) -> None:
    numbers = [group(database, text, 256 + at, task=text[:200], queue=text[:200], tags=[text], args={text: text})
               for at, text in enumerate(HOSTILE)]  # fmt: skip
    job(database, state="running", progress={"fraction": 0.4, "text": "x" * 300})
    opened.set_viewport_size({"width": width, "height": 800})
    for path in ("/jobs", "/jobs?q=quee:x", f"/jobs/{numbers[-1]}", f"/jobs/{numbers[0]}", "/jobs/all", "/errors",
                 f"/errors/{256 + len(HOSTILE) - 1:016x}"):  # fmt: skip
        opened.goto(path)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, path


def test_a_part_of_a_chart_is_chosen_with_the_mouse_and_with_keys(opened: Any, database: Database) -> None:
    group(database)
    opened.goto(f"/errors/{1:016x}")
    plot = opened.locator(".chart-plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    opened.mouse.move(box["x"] + box["width"] - 4, box["y"] + 60)
    tip = opened.locator(".chart-tip")
    tip.wait_for()
    assert tip.inner_text().endswith("errors 1")
    plot.focus()
    opened.keyboard.press("Escape")
    opened.keyboard.press("ArrowRight")
    first = opened.locator(".chart tbody tr").first.evaluate("row => [...row.cells].map((cell) => cell.textContent)")
    assert tip.inner_text() == "\nerrors ".join(first)
    opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("Enter")
    opened.wait_for_url("**/errors/*from=*")
    opened.get_by_role("link", name="Jobs enqueued then").click()
    opened.wait_for_url("**/jobs?q=*")
    assert re.fullmatch(r"\s*fp:0{15}1 after:\S+Z before:\S+Z", opened.get_by_label("Filter").input_value())
    assert opened.get_by_role("alert").count() == 0


def test_the_log_of_a_running_job_goes_on(opened: Any, database: Database) -> None:
    _, number = running(database)
    opened.goto(f"/jobs/{number}")
    opened.get_by_role("button", name="Follow the log").click()
    opened.get_by_text("No lines yet.").wait_for()
    write_line(database, number, "half of it is done")
    opened.get_by_text("half of it is done").wait_for()


@pytest.mark.parametrize(("choice", "word"), [("relative", "for 1 min"), ("utc", "since 20"), ("local", "since 20")])
def test_a_running_attempt_says_for_how_long_it_has_run(
    opened: Any, database: Database, choice: str, word: str
) -> None:
    running = job(database, state="running", claimed_at=datetime.now(UTC) - timedelta(seconds=90), attempt=1)
    opened.goto(f"/jobs/{running}")
    opened.get_by_label("Times").select_option(choice)

    ran = opened.get_by_role("row", name="running").locator("[data-label=Ran]").inner_text()

    assert ran.startswith(word)
    assert "ago" not in ran
