"""Pages in a real browser: refresh, preferences, keys."""

from typing import Any

import pytest

from tests.database import Database

DEPTH = """
    INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
    VALUES (now(), 'mail', %s, 0, 0, 0, 0, NULL, true)
"""


def test_the_overview_is_refreshed(opened: Any, database: Database) -> None:
    opened.goto("/")
    opened.get_by_text("No queue has held a job yet.").wait_for()
    database.connect().execute(DEPTH, [7])
    opened.get_by_role("row", name="mail").wait_for(timeout=12_000)


def test_a_theme_that_was_chosen_stays(opened: Any) -> None:
    opened.goto("/")
    opened.get_by_label("Theme").select_option("dark")
    opened.reload()
    assert opened.locator("html").get_attribute("data-theme") == "dark"
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 24)"


def test_the_help_shows_the_keys(opened: Any) -> None:
    opened.goto("/")
    opened.keyboard.press("?")
    opened.get_by_role("dialog", name="Keys").wait_for()
    opened.keyboard.press("Escape")
    opened.keyboard.press("g")
    opened.keyboard.press("o")
    opened.get_by_role("heading", name="Overview", exact=True).wait_for()


@pytest.mark.parametrize("width", [320, 390, 1280, 2560])
def test_no_page_is_wider_than_the_window(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.goto("/")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
