"""The pages of a job that a real node runs, in a real browser: its stack, and the lines that it logs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.database import Database
from tests.lifecycle.cluster import SOON, Cluster
from tests.lifecycle.logging_handlers import app, steps

NODE = {"QWORKER_APP": "tests.lifecycle.logging_handlers:app", "QWORKER_LOG_LEVEL": "info"}


@pytest.fixture
def cluster(database: Database, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(database, tmp_path) as cluster:
        yield cluster
    app.close()


def test_the_stack_and_the_log_of_a_running_job(cluster: Cluster, opened: Any, tmp_path: Path) -> None:
    opened.set_default_timeout(20_000)
    cluster.start("--processes", "1", **NODE).await_ready()
    job = steps.enqueue(str(tmp_path), 2)
    opened.goto(f"/jobs/{job.id}")
    opened.locator(".summary .badge", has_text="running").wait_for()
    opened.get_by_text("Runs on").wait_for()
    assert opened.locator("[data-label=Ran]").inner_text().startswith("for ")

    opened.reload()
    opened.get_by_role("button", name="Stack").click()
    opened.get_by_text("in steps").wait_for()
    assert "logging_handlers.py" in opened.locator("main").inner_text()

    opened.goto(f"/jobs/{job.id}")
    opened.get_by_role("button", name="Follow the log").click()
    for number in range(3):
        (tmp_path / f"1.{number}").touch()
        # The page asks for new lines by itself.
        opened.get_by_text(f"number={number}").wait_for()
    opened.locator("main .badge", has_text="completed").wait_for()
    assert opened.locator(".lines li").count() == 3
    job.wait(SOON)

    opened.get_by_role("link", name=str(job.id)).click()
    opened.locator(".summary .badge", has_text="completed").wait_for()
    opened.get_by_role("heading", name="Logs").wait_for()
    assert job.refresh().attempt == 1
