"""The way down: drain, interrupt, kill; always to exit code 0 with nothing left running."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qworker import Job, JobState
from tests.lifecycle.application import app, nap, quick
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.handlers import held
from tests.lifecycle.hostile import lingers
from tests.lifecycle.node import Node
from tests.waiting import until

INTERRUPTED = "supervisor.interrupting"
KILLED = "supervisor.killing"


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.start("--processes", "2", QWORKER_APP="tests.lifecycle.hostile:app").await_ready()


def running(cluster: Cluster, job: Job) -> Job:
    """Wait until a job's handler runs."""
    cluster.await_notes("start", job=job.id)
    return job


def ended(node: Node, timeout: float = 20.0) -> int:
    """Wait for the node's end; return its exit code. Nothing of it may be left.

    What a worker's job had started is killed with it, and not waited for: the kernel needs a moment.
    """
    code = node.wait(timeout)
    assert node.children("worker") + node.children("scheduler") == []
    until(lambda: not node.members(), 5, what="the end of all")
    return code


def stands(job: Job) -> tuple[JobState, int, int, int]:
    """Return where a job stands, and what was charged to it."""
    found = job.refresh()
    return found.state, found.attempt, found.crashes, found.node_losses


UNCHARGED = (JobState.AVAILABLE, 0, 0, 0)
DONE = (JobState.COMPLETED, 1, 0, 0)


def test_an_idle_node_ends_at_once(cluster: Cluster, node: Node) -> None:
    node.signal(signal.SIGTERM)
    assert ended(node, 5) == 0
    assert cluster.query("SELECT id FROM qworker.node") == [], "it has signed off"


def test_a_drain_lets_running_jobs_end_and_takes_no_other(cluster: Cluster, node: Node, tmp_path: Path) -> None:
    jobs = [running(cluster, held.enqueue(str(tmp_path / "go"))) for _ in range(2)]
    waiting = quick.enqueue()
    for count in (1, 2, 3):
        node.signal(signal.SIGTERM)
        node.await_event("supervisor.signalled", signal="SIGTERM", count=count)
    (tmp_path / "go").touch()
    assert ended(node) == 0
    assert len(node.events("supervisor.draining")) == 1
    assert node.events(INTERRUPTED) == []
    assert [stands(job) for job in jobs] == [DONE, DONE]
    assert stands(waiting) == UNCHARGED


def test_the_first_ctrl_c_drains(cluster: Cluster, node: Node, tmp_path: Path) -> None:
    job = running(cluster, held.enqueue(str(tmp_path / "go")))
    node.signal(signal.SIGINT)
    assert "again to interrupt" in node.await_event("supervisor.draining")["hint"]
    (tmp_path / "go").touch()
    assert ended(node) == 0
    assert stands(job) == DONE


def test_the_second_ctrl_c_interrupts(cluster: Cluster, node: Node) -> None:
    job = running(cluster, nap.enqueue(60))
    node.signal(signal.SIGINT)
    node.await_event("supervisor.draining")
    node.signal(signal.SIGINT)
    assert ended(node) == 0
    assert node.events(KILLED) == []
    assert stands(job) == UNCHARGED


def test_the_third_ctrl_c_kills(cluster: Cluster, node: Node) -> None:
    job = running(cluster, app.get_task("cancellable").options(timeout=60).enqueue(swallow=True))
    node.signal(signal.SIGINT)
    node.await_event("supervisor.draining")
    node.signal(signal.SIGINT)
    cluster.await_notes("interrupted", job=job.id)
    node.signal(signal.SIGINT)
    assert ended(node, 5) == 0
    assert stands(job) == UNCHARGED


def test_quit_interrupts_at_once_and_again_kills(cluster: Cluster, node: Node) -> None:
    sleeping = running(cluster, nap.enqueue(60))
    stubborn = running(cluster, app.get_task("cancellable").enqueue(swallow=True))
    node.signal(signal.SIGQUIT)
    cluster.await_notes("interrupted", job=stubborn.id)
    until(lambda: stands(sleeping) == UNCHARGED, what="the interrupted job's return")
    node.signal(signal.SIGQUIT)
    assert ended(node, 5) == 0
    assert node.events("supervisor.draining") == []
    assert stands(stubborn) == UNCHARGED


def test_a_drain_that_takes_too_long_interrupts_and_then_kills(cluster: Cluster) -> None:
    node = cluster.start("--processes", "2", "--shutdown-timeout", "0.3", "--interrupt-timeout", "0.5").await_ready()
    sleeping = running(cluster, nap.enqueue(60))
    stubborn = running(cluster, app.get_task("cancellable").enqueue(swallow=True))
    node.signal(signal.SIGTERM)
    assert ended(node, 5) == 0
    assert [len(node.events(name)) for name in (INTERRUPTED, KILLED)] == [1, 1]
    assert stands(sleeping) == UNCHARGED
    assert stands(stubborn) == UNCHARGED


def test_what_running_jobs_have_started_ends_with_them(cluster: Cluster, node: Node) -> None:
    job = app.get_task("stuck").options(timeout=60).enqueue("shell")
    running(cluster, job)
    node.signal(signal.SIGQUIT)
    assert ended(node) == 0
    assert stands(job) == UNCHARGED


def test_another_node_goes_on_with_what_was_handed_back(cluster: Cluster, node: Node) -> None:
    """A deploy: no attempt is charged, and the jobs wait for nothing."""
    jobs = [running(cluster, lingers.enqueue()) for _ in range(2)]
    successor = cluster.start("--processes", "2", QWORKER_APP="tests.lifecycle.hostile:app").await_ready()
    node.signal(signal.SIGQUIT)
    for job in jobs:
        job.wait(5)
    assert ended(node) == 0
    assert [stands(job) for job in jobs] == [DONE, DONE]
    assert successor.stop() == 0


STORM = Path(__file__).parent / "scripts" / "early.py"


def test_a_node_can_be_stopped_at_any_moment_of_its_start(cluster: Cluster, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    environment = os.environ | {"QWORKER_TEST_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, STORM, "50", str(seed)], env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip
    assert ran.returncode == 0, f"seed {seed}:\n{ran.stderr[-5000:]}"
    assert cluster.query("SELECT id FROM qworker.node") == []
