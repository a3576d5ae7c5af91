"""Asynchronous handlers in nodes: results, errors, interrupts that arrive as cancellations, and signals."""

import pytest

from qworker import JobFailed, JobState
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.coroutines import WAYS, adds, dispositions, ends, raises, signals, snoozes
from tests.lifecycle.node import Node

APP = {"QWORKER_APP": "tests.lifecycle.coroutines:app"}
#: The ways in which a handler sees its cancellation.
SEES = {"waits", "gathers", "cleans up"}


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "1", "--kill-grace", "10", **APP).await_ready()


def test_a_coroutine_runs_to_its_result(node: Node) -> None:
    assert [job.wait(SOON) for job in [adds.enqueue(n, 1) for n in range(20)]] == list(range(1, 21))
    assert node.events("signals.restored") == []


def test_a_snooze_is_one(node: Node) -> None:
    assert reached(snoozes.enqueue(), JobState.SCHEDULED).attempt == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [("bad", "ValueError: bad"), ("cancels itself", "the handler has cancelled itself"), ("exits", "SystemExit: 3")],
)
def test_an_error_fails_the_job(node: Node, error: str, message: str) -> None:
    job = raises.enqueue(error)
    with pytest.raises(JobFailed, match=message) as raised:
        job.wait(SOON)
    if error == "bad":
        assert "base_events" not in raised.value.traceback
        assert "qworker/coroutines" not in raised.value.traceback


@pytest.mark.parametrize("way", WAYS)
def test_a_timeout_ends_each_of_them(node: Node, module_cluster: Cluster, way: str) -> None:
    job = ends.enqueue(way)
    assert job.wait(SOON) == "second attempt", node.tail()
    errors = job.refresh().errors
    assert [error["cause"] for error in errors] == ["timeout"]
    assert "killed" not in str(errors), "the interrupt is to end it, not the supervisor"
    assert bool(module_cluster.notes("cancelled", job=job.id)) >= (way in SEES)
    assert bool(module_cluster.notes("cleaned", job=job.id)) is (way == "cleans up")


def test_signals_that_a_loop_has_taken_over_are_restored(node: Node) -> None:
    before = dispositions.enqueue().wait(SOON)
    assert signals.enqueue().wait(SOON) == ["received"]
    assert dispositions.enqueue().wait(SOON) == before


@pytest.mark.parametrize("way", ["cleans up", "blocks in a task", "blocks"])
def test_a_cancelled_job_is_cancelled_inside(node: Node, module_cluster: Cluster, way: str) -> None:
    job = ends.options(timeout=60).enqueue(way)
    module_cluster.await_notes("started", job=job.id)
    job.cancel()
    assert reached(job).state == JobState.CANCELLED, node.tail()
    assert bool(module_cluster.notes("cleaned", job=job.id)) is (way == "cleans up")
    assert not node.events("worker.killed")
