"""What a handler does to the signals of its process does not reach the next job, nor is that charged for it."""

import signal
from pathlib import Path

import pytest

from qworker import JobState, Retry
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.lifecycle.test_shutdown import DONE, UNCHARGED, ended, stands
from tests.lifecycle.test_switches import pending
from tests.waiting import until

WAYS = ("asyncio", "ignored", "default", "foreign", "blocked", "wakeup")


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "1", *SOONER, "--kill-grace", "3").await_ready()


@pytest.mark.parametrize("way", WAYS)
def test_the_next_job_is_let_finish_by_a_deploy(cluster: Cluster, tmp_path: Path, way: str) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    reached(handlers.meddles.enqueue(way))
    next_one = handlers.held.enqueue(str(tmp_path / "go"))
    cluster.await_notes("start", job=next_one.id)
    waiting = shop.quick.enqueue()
    (worker,) = node.children("worker")
    node.signal(signal.SIGTERM)
    node.await_event("supervisor.draining")
    until(lambda: not pending(worker, signal.SIGTERM), SOON)  # the worker has answered it
    assert node.children("worker") == [worker]
    (tmp_path / "go").touch()
    assert ended(node, 10) == 0
    assert stands(next_one) == DONE
    assert stands(waiting) == UNCHARGED, "the worker has gone on claiming"
    assert not node.events("supervisor.interrupting")


@pytest.mark.parametrize("way", [*WAYS, "timer"])
def test_the_next_job_is_interrupted_at_its_timeout(node: Node, way: str) -> None:
    reached(handlers.meddles.enqueue(way))
    after = reached(handlers.stuck.options(retry=Retry(1)).enqueue("sleep"))
    assert (after.state, after.crashes) == (JobState.FAILED, 0)
    assert after.errors[-1]["type"] == "qworker.errors.TimeoutInterrupt"


@pytest.mark.parametrize("way", WAYS)
def test_the_next_job_is_interrupted_when_it_is_cancelled(node: Node, module_cluster: Cluster, way: str) -> None:
    reached(handlers.meddles.enqueue(way))
    (worker,) = until(lambda: node.children("worker"), SOON)  # its predecessor may have ended with an earlier test
    job = shop.nap.enqueue(60)
    module_cluster.await_notes("start", job=job.id)
    assert job.cancel()
    after = reached(job)
    assert (after.state, after.crashes) == (JobState.CANCELLED, 0)
    assert not node.events("child.overdue", child_pid=worker), "it was killed after the grace"
    assert module_cluster.notes("start", job=job.id)[0]["pid"] == str(worker)


def test_an_idle_worker_hears_of_a_deploy_at_once(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    reached(handlers.meddles.enqueue("wakeup"))
    node.signal(signal.SIGTERM)
    assert ended(node, 5) == 0


def test_a_pipe_that_breaks_and_the_exit_code_of_a_subprocess_are_reported_to_the_next_job(node: Node) -> None:
    for way, task, result in (("pipe", handlers.breaks_a_pipe, "told"), ("children", handlers.exit_code, 1)):
        reached(handlers.meddles.enqueue(way))
        after = reached(task.enqueue())
        assert (after.state, after.result) == (JobState.COMPLETED, result)


def test_what_was_put_right_is_logged_once_for_each_task(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    first = handlers.meddles.enqueue("ignored")
    for job in (first, handlers.meddles.enqueue("ignored")):
        reached(job)
    reached(handlers.meddles.enqueue("blocked"))
    (event,) = node.events("signals.restored")
    assert (event["task"], event["job"]) == ("meddles", first.id)
    assert "SIGTERM (SIG_IGN)" in event["changed"]
    assert node.stop() == 0


def test_a_job_that_dies_of_the_signal_of_a_deploy_is_not_charged(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    job = handlers.meddles_and_waits.enqueue("default", str(tmp_path / "never"))
    cluster.await_notes("meddled", job=job.id)
    assert node.stop() == 0
    assert node.events("child.died", cause="shutdown", job=job.id)
    assert stands(job) == UNCHARGED


def test_a_job_that_dies_of_the_signal_that_cancels_it_is_cancelled(
    node: Node, module_cluster: Cluster, tmp_path: Path
) -> None:
    job = handlers.meddles_and_waits.enqueue("default", str(tmp_path / "never"))
    module_cluster.await_notes("meddled", job=job.id)
    assert job.cancel()
    after = reached(job, timeout=SOON)
    assert (after.state, after.crashes) == (JobState.CANCELLED, 0)
    assert node.events("child.died", cause="signal:USR1", job=job.id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1])
def test_a_handler_that_orders_its_own_worker_to_stop_runs_once(node: Node, number: signal.Signals) -> None:
    """Released as in a shutdown, it would run again without end, and no other job would."""
    job, behind = handlers.orders_itself.enqueue(number), shop.quick.enqueue()
    done = reached(job)
    assert (done.state, done.attempt, done.result) == (JobState.COMPLETED, 1, "done")
    assert reached(behind).state is JobState.COMPLETED
