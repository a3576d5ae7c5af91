"""Every failed attempt is reported once to `logging` and to the hooks of `App.on_error`, whatever ended it."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from qworker import JobState, Retry
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.reporting:app"}


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", *SOONER, "--kill-grace", "0.5", **APP).await_ready()


ENDS: dict[str, tuple[Any, tuple[object, ...], str, str, str]] = {
    "raises": (shop.flaky, (1,), "ValueError", "None", "ValueError"),
    "times out": (handlers.stuck, ("sleep",), "qworker.errors.TimeoutInterrupt", "timeout", "TimeoutInterrupt"),
    "is killed at its timeout": (handlers.stuck, ("swallow",), "WorkerDied", "timeout", "NoneType"),
    "crashes": (handlers.dies, ("SIGKILL",), "WorkerDied", "signal:KILL", "NoneType"),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_that_fails_is_reported_once(node: Node, module_cluster: Cluster, end: str) -> None:
    task, args, kind, cause, raised = ENDS[end]
    job = task.enqueue(*args)
    assert reached(job).state is JobState.COMPLETED
    (hooked,) = module_cluster.await_notes("reported", job=job.id)
    assert hooked["task"] == job.task
    facts = (hooked["attempt"], hooked["type"], hooked["cause"], hooked["raised"], hooked["args"])
    assert facts == ("1", kind, cause, raised, "True")
    (logged,) = module_cluster.await_notes("logged", job=job.id)
    assert (logged["attempt"], logged["raised"]) == ("1", raised)
    assert (
        hooked["pid"] in {str(pid) for pid in [*node.children("worker"), *node.children("scheduler")]}
        or raised != "NoneType"
    )


def test_the_last_attempt_is_reported_as_the_last_and_stands_once_on_standard_error(
    node: Node, module_cluster: Cluster
) -> None:
    job = shop.hopeless.enqueue()
    reached(job)
    (hooked,) = module_cluster.await_notes("reported", job=job.id)
    assert hooked["state"] == "failed"
    module_cluster.await_notes("logged", job=job.id)
    about = [event["event"] for event in node.events(job=job.id)]
    assert about.count("report.error") == 2, "the broken hooks are logged"  # by a thread: its place in the log varies
    assert [event for event in about if "fail" in event] == ["job.failed"]
    assert not node.events(logger="qworker.job")


def test_nothing_is_reported_of_what_has_not_failed(module_cluster: Cluster, node: Node, tmp_path: Path) -> None:
    jobs = [shop.quick.enqueue(), shop.snoozing.enqueue(str(tmp_path / "seen"), 0.05)]
    cancelled = shop.nap.enqueue(60)
    module_cluster.await_notes("start", job=cancelled.id)
    cancelled.cancel()
    last = shop.hopeless.enqueue()
    for job in (*jobs, cancelled, last):
        reached(job)
    module_cluster.await_notes("reported", job=last.id)
    assert not [n for job in (*jobs, cancelled) for n in module_cluster.notes("reported", job=job.id)]
    assert node.process.poll() is None


def test_a_hook_that_hangs_holds_up_neither_jobs_nor_the_lease_nor_the_end(cluster: Cluster, tmp_path: Path) -> None:
    stuck = {"QWORKER_TEST_STUCK_HOOK": str(tmp_path / "never")}
    node = cluster.start("--processes", "1", *SOONER, "--lease-timeout", "5", **APP, **stuck).await_ready()
    crashing = handlers.dies.enqueue("SIGKILL")
    assert reached(crashing).state is JobState.COMPLETED
    cluster.await_notes("reported", job=crashing.id)  # from the scheduler, which renews the lease
    failing = shop.hopeless.enqueue()
    assert reached(failing).state is JobState.FAILED
    cluster.await_notes("reported", job=failing.id)
    beat = "SELECT heartbeat FROM qworker.node"
    first = cluster.value(beat)
    until(lambda: cluster.value(beat) > first + 5, 2 * SOON)
    assert shop.answer.enqueue(1).wait(SOON) == 1
    assert not node.events("worker.lease_lost")
    assert node.stop() == 0


def test_the_job_of_a_lost_node_is_reported_by_the_node_that_frees_it(cluster: Cluster, tmp_path: Path) -> None:
    lost = cluster.start("--processes", "1", "--lease-timeout", "5", **APP).await_ready()
    job = handlers.held.options(retry=Retry(1)).enqueue(str(tmp_path / "go"))
    cluster.await_notes("start", job=job.id)
    for pid in lost.members():
        os.kill(pid, signal.SIGKILL)
    other = cluster.start("--processes", "1", "--lease-timeout", "5", **APP).await_ready()
    (hooked,) = cluster.await_notes("reported", timeout=30, job=job.id)
    assert (hooked["cause"], hooked["pid"], hooked["args"]) == (
        "node-lost",
        str(other.children("scheduler")[0]),
        "True",
    )
    (tmp_path / "go").touch()
    assert reached(job).state is JobState.COMPLETED
