"""Middleware and process hooks on real nodes: whatever they do, no job is lost."""

import signal
from time import monotonic

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


def test_a_start_hook_that_hangs_is_killed_and_claims_no_job(cluster: Cluster) -> None:
    node = cluster.start(
        "--processes", "1", "--queues", "default,before", "--boot-timeout", "1", QWORKER_TEST_HANGING_START="1", **APP
    )
    job = layered.options(queue="before").enqueue()
    begun = monotonic()
    node.await_event("child.died", count=2, cause="stalled")
    assert monotonic() - begun < 15, "two starts of a second, each with its stack dump, and a delay"
    assert "in starts" in node.events("child.died", cause="stalled")[0]["stacks"]
    assert len(cluster.notes("started")) >= 2
    after = job.refresh()
    assert (after.state, after.attempt) == (JobState.AVAILABLE, 0)
    assert node.stop() == 0


def test_a_stop_hook_that_hangs_delays_neither_outcomes_nor_the_shutdown_beyond_its_deadline(cluster: Cluster) -> None:
    node = cluster.start(
        "--processes", "1", "--shutdown-timeout", "1", "--interrupt-timeout", "1", *SOONER,
        QWORKER_TEST_HANGING_STOP="1", QWORKER_APP=APP["QWORKER_APP"],
    ).await_ready()  # fmt: skip
    job = layered.options(queue="default").enqueue()
    reached(job)
    begun = monotonic()
    assert node.stop() == 0
    assert monotonic() - begun < 10
    assert len(cluster.notes("stopped")) == 1
    assert cluster.value("SELECT count(*) FROM qworker.node") == 0


def test_a_recycled_worker_whose_stop_hook_hangs_is_killed(cluster: Cluster) -> None:
    node = cluster.start(
        "--processes", "1", "--max-jobs-per-worker", "1", "--stall-timeout", "5", *SOONER,
        QWORKER_TEST_HANGING_STOP="1", QWORKER_APP=APP["QWORKER_APP"],
    ).await_ready()  # fmt: skip
    first, second = layered.enqueue(), layered.enqueue()
    reached(first)
    assert reached(second, timeout=30).result == "outer(handler 7)"
    node.await_event("child.died", cause="stalled")
    assert (first.refresh().crashes, len(cluster.notes("ran"))) == (0, 2)


def test_middleware_and_hooks_run_inline_as_well(cluster: Cluster) -> None:
    node = cluster.start("--inline", "--queues", ",".join(["default", *WAYS]), *SOONER, **APP)
    ends = {way: reached(layered.options(queue=way).enqueue()) for way in ("before", "instead", "raises", "snoozes")}
    assert {way: end.state for way, end in ends.items()} == {
        "before": JobState.COMPLETED, "instead": JobState.COMPLETED, "raises": JobState.FAILED,
        "snoozes": JobState.COMPLETED,
    }  # fmt: skip
    assert ends["before"].result == "outer(handler 6)"
    assert node.events("middleware.swallowed", job=ends["snoozes"].id)
    assert {note["pid"] for note in cluster.notes("started")} == {str(node.pid)}
    assert node.stop() == 0
    assert [note["pid"] for note in cluster.notes("stopped")] == [str(node.pid)]
