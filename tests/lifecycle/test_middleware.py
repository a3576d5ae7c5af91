"""Middleware and process hooks on real nodes: whatever they do, no job is lost."""

import signal

import pytest

from qworker import JobState
from tests.lifecycle.cluster import SOONER, Cluster, reached
from tests.lifecycle.layers import app
from tests.lifecycle.node import Node
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.layers:app"}
WAYS = ["before", "after", "instead", "twice", "raises", "caught", "snoozes", "timeout", "shutdown", "cancelled"]
layered = app.tasks["layered"]


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start(
        "--processes", "2", "--queues", ",".join(["default", *WAYS]), *SOONER, "--kill-grace", "5", **APP
    ).await_ready()


@pytest.mark.parametrize(
    ("way", "state", "result", "errors", "runs"),
    [
        ("before", JobState.COMPLETED, "outer(handler 6)", ["ValueError"], 1),
        ("after", JobState.COMPLETED, "outer(handler 5)", ["ValueError"], 2),
        ("instead", JobState.COMPLETED, "outer(instead)", [], 0),
        ("twice", JobState.FAILED, None, ["qworker.errors.InvalidOperation"] * 2, 2),
        ("raises", JobState.FAILED, None, ["LookupError"] * 2, 2),
        ("caught", JobState.COMPLETED, "outer(swallowed)", [], 1),
        ("snoozes", JobState.COMPLETED, "outer(handler 7)", [], 2),
    ],
)
def test_a_job_ends_as_its_middleware_says_but_is_never_lost(
    node: Node, module_cluster: Cluster, way: str, state: JobState, result: str | None, errors: list[str], runs: int
) -> None:
    job = layered.options(queue=way).enqueue()
    after = reached(job)
    assert (after.state, after.result, [error["type"] for error in after.errors]) == (state, result, errors)
    assert len(module_cluster.notes("ran", job=job.id)) == runs
    if way == "snoozes":
        node.await_event("middleware.swallowed", job=job.id, error="Snooze")


def test_a_swallowed_timeout_is_a_timeout(node: Node) -> None:
    after = reached(layered.options(queue="timeout", timeout=0.3).enqueue())
    assert (after.state, [error["cause"] for error in after.errors]) == (JobState.FAILED, ["timeout"] * 2)
    assert node.await_event("middleware.swallowed", job=after.id)["error"] == "TimeoutInterrupt"


def test_a_job_whose_cancellation_is_swallowed_is_cancelled(node: Node, module_cluster: Cluster) -> None:
    job = layered.options(queue="cancelled").enqueue()
    module_cluster.await_notes("ran", job=job.id)
    app.job(job.id).cancel()
    assert reached(job).state is JobState.CANCELLED


def test_stored_tracebacks_show_the_applications_frames_only(node: Node) -> None:
    trace = reached(layered.options(queue="raises").enqueue()).errors[-1]["traceback"]
    assert "in layered" in trace
    assert "in misbehaves" in trace
    for ours in ("execution.py", "interrupts.py", "qworker/middleware.py"):
        assert ours not in trace


def test_a_job_whose_interruption_is_swallowed_runs_again(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", "--queues", "shutdown", *SOONER, **APP).await_ready()
    job = layered.options(queue="shutdown").enqueue()
    cluster.await_notes("ran", job=job.id)
    node.signal(signal.SIGTERM)
    node.signal(signal.SIGQUIT)
    node.wait()
    after = job.refresh()
    assert (after.state, after.attempt) == (JobState.AVAILABLE, 0)


def test_each_worker_calls_its_hooks_and_survives_a_broken_stop_hook(cluster: Cluster) -> None:
    node = cluster.start("--processes", "2", **APP).await_ready()
    until(lambda: len(cluster.notes("started")) == 2, what="two workers")
    assert node.stop() == 0
    assert {note["pid"] for note in cluster.notes("stopped")} == {note["pid"] for note in cluster.notes("started")}
    assert node.await_event("worker.stop_hook_failed")["hook"] == "breaks"


def test_a_broken_start_hook_claims_no_job_and_is_tried_ever_more_rarely(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", "--queues", "default,before", QWORKER_TEST_BROKEN_START="1", **APP)
    job = layered.options(queue="before").enqueue()
    node.await_event("worker.start_hook_failed", count=3)
    assert "not today" in node.events("worker.start_hook_failed")[0]["exception"]
    delays = [event["respawn_in"] for event in node.events("child.died", cause="exit:70")]
    assert delays[0] == 0 < delays[1]
    assert job.refresh().state is JobState.AVAILABLE
    assert not cluster.notes("ran", job=job.id)
