"""`qworker top` with real nodes: what the tabs show, and what the keys do."""

from pathlib import Path

import pytest

from qworker import App, JobState
from tests.lifecycle.cluster import SOON, Cluster
from tests.lifecycle.screen import Screen, drive, top
from tests.lifecycle.stack_handlers import app as handlers
from tests.lifecycle.stack_handlers import sleeps

APP = {"QWORKER_APP": "tests.lifecycle.stack_handlers:app"}


@pytest.fixture
def end(tmp_path: Path) -> Path:
    return tmp_path / "end"


def test_the_tabs_show_a_running_cluster(cluster: Cluster, end: Path) -> None:
    cluster.start("--processes", "2", **APP).await_ready()
    job = sleeps.enqueue(str(end))
    cluster.await_notes("started", job=job.id)

    async def scenario(screen: Screen) -> None:
        await screen.shows("Jobs", "1 running", "1/2 busy", "1 node", "Last hour")
        await screen.press("2")
        await screen.shows("QUEUE▲", "default", "DRAIN", "1 of 1")
        await screen.press("3")
        await screen.shows("TASK", str(job.id), "tests.lifecycle.stack_h", "TIMEOUT")  # as far as it fits
        await screen.press("4")
        await screen.shows("no error has occurred")
        await screen.press("5")
        await screen.shows("HEARTBEAT", "1/2")
        await screen.press("6")
        await screen.shows("EXPRESSION")
        await screen.press("7")
        await screen.shows("SEVERITY")
        await screen.press("l")
        assert screen.app.tab.value == "overview"
        await screen.press("h", "h")
        assert screen.app.tab.value == "schedules"

    drive(top(cluster.database.dsn), scenario)
    end.touch()
    assert job.wait(SOON) == "undisturbed"


def test_a_running_job_shows_its_stack_and_is_cancelled(cluster: Cluster, end: Path) -> None:
    cluster.start("--processes", "1", **APP).await_ready()
    job = sleeps.enqueue(str(end))
    cluster.await_notes("started", job=job.id)

    async def scenario(screen: Screen) -> None:
        await screen.press("3")
        await screen.shows(str(job.id))
        await screen.press("S")
        await screen.shows(f"Stack of job {job.id}", "in sleeps")
        await screen.press("escape")
        await screen.until(lambda: "Stack of" not in screen.text)
        await screen.press("enter")
        await screen.shows(f"Job {job.id}", "runs on")
        await screen.press("C")
        await screen.shows("its cancellation is requested")
        await screen.press("escape")
        await screen.shows("no job is running")

    drive(top(cluster.database.dsn), scenario)
    assert job.refresh().state is JobState.CANCELLED
    (entry,) = handlers.admin.audit(job=job.id)
    assert (entry.action, entry.via) == ("job.cancel", "top")


def test_a_queue_is_paused_with_a_reason_and_resumed(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    queue = handlers.queue("default")

    async def scenario(screen: Screen) -> None:
        await screen.press("2")
        await screen.shows("default")
        await screen.press("p")
        await screen.shows("Pause default. Reason")
        await screen.type("upstream down")
        await screen.press("enter")
        await screen.shows("queue default is paused", "PAUSED", "upstream down")
        node.await_event("queue.paused", reason="upstream down")
        await screen.press("p")
        await screen.shows("Resume default?")
        await screen.press("enter")
        await screen.shows("queue default is resumed")
        await screen.until(lambda: "upstream down" not in screen.text)

    drive(top(cluster.database.dsn), scenario)
    assert queue.paused is None


def test_a_node_is_paused_with_a_reason_and_resumed(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    (status,) = handlers.admin.nodes()

    async def scenario(screen: Screen) -> None:
        await screen.press("5")
        await screen.shows(status.name)
        await screen.press("p")
        await screen.shows(f"Pause {status.name}. Reason")
        await screen.type("new kernel")
        await screen.press("enter")
        await screen.shows(f"node {status.name} is paused", "PAUSED", "new kernel")
        node.await_event("node.paused", reason="new kernel")
        await screen.press("enter")
        await screen.shows(f"Node {status.name}", "paused", "new kernel")
        await screen.press("escape")
        await screen.press("p")
        await screen.shows(f"Resume {status.name}?")
        await screen.press("enter")
        await screen.shows(f"node {status.name} is resumed")
        node.await_event("node.resumed")

    drive(top(cluster.database.dsn), scenario)
    assert [(entry.action, entry.via) for entry in handlers.admin.audit()] == [
        ("node.resume", "top"), ("node.pause", "top")
    ]  # fmt: skip


def test_failed_jobs_are_filtered_selected_retried_and_discarded(cluster: Cluster) -> None:
    app = App(cluster.database.dsn)
    task = app.task(name="charge", queue="billing")(lambda order: order)
    jobs = [task.enqueue(order) for order in range(4)]
    cluster.query(
        "UPDATE qworker.job SET state = 'failed', failed_at = now(), errors = "
        """'[{"type": "ValueError", "message": "order not found", "attempt": 1}]'"""
    )

    async def scenario(screen: Screen) -> None:
        await screen.press("4", "f")
        await screen.shows("ValueError: order not found", "1 of 4")
        await screen.press("slash")
        await screen.type("args.order:1 queu:billing")
        await screen.press("enter")
        await screen.shows("queu:billing", "             ^", "queue")
        await screen.press("escape", "slash")
        await screen.type("args.order:1,2")
        await screen.press("enter")
        await screen.shows("filter args.order:1,2", "1 of 2")
        await screen.press("x", "R")
        await screen.shows(f"job {jobs[2].id} is available again", "1 of 1")
        await screen.press("escape", "f")
        await screen.shows("1 of 3")
        await screen.press("A")
        await screen.shows("3 selected")
        await screen.press("D")
        await screen.shows("3 of 3 jobs are discarded", "no failed jobs")

    drive(top(cluster.database.dsn), scenario)
    states = [app.job(job.id).state for job in jobs]
    assert [states[0], states[2]] == [JobState.DISCARDED, JobState.AVAILABLE]
    assert {(entry.action, entry.via) for entry in app.admin.audit()} == {("job.retry", "top"), ("job.discard", "top")}
    app.close()


def test_the_palette_has_the_tabs_and_the_actions(cluster: Cluster) -> None:
    async def scenario(screen: Screen) -> None:
        await screen.press("ctrl+p")
        await screen.type("Tab Schedules")
        await screen.shows("Go to the tab (key 6)")
        await screen.press("down", "enter")
        await screen.until(lambda: screen.app.tab.value == "schedules")
        await screen.press("ctrl+p")
        await screen.type("Retry")
        await screen.shows("Retry the failed jobs (key R)")
        await screen.press("down", "enter")
        await screen.shows("the row at the cursor has just gone")

    drive(top(cluster.database.dsn), scenario)
