"""A process that has left its group and blocks its signals is killed all the same."""

import os
import signal

from qworker import JobState
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.escapes import escapes, escapes_for_good
from tests.lifecycle.node import Node, alive
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.escapes:app"}


def escaped(node: Node, pid: int) -> bool:
    return os.getpgid(pid) == os.getpgid(node.pid)


def test_its_jobs_timeout_ends_it(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", "--kill-grace", "0.5", **APP).await_ready()
    job = escapes.enqueue()
    pid = int(cluster.await_notes("start", job=job.id)[0]["pid"])
    until(lambda: escaped(node, pid))
    done = reached(job)
    assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 2, 1)
    assert done.errors[0]["cause"] == "timeout"
    assert not alive(pid)
    assert node.stop() == 0


def test_it_does_not_keep_its_node_from_stopping(cluster: Cluster) -> None:
    node = cluster.start(
        "--processes", "1", "--shutdown-timeout", "0.2", "--interrupt-timeout", "0.2", **APP
    ).await_ready()
    job = escapes_for_good.enqueue()
    pid = int(cluster.await_notes("start", job=job.id)[0]["pid"])
    until(lambda: escaped(node, pid))
    node.signal(signal.SIGTERM)
    assert node.wait(20) == 0
    assert node.members() == []
    assert job.refresh().state is JobState.AVAILABLE


def test_a_supervisor_that_stands_still_does_not_keep_it_running_beside_the_next_attempt(cluster: Cluster) -> None:
    """The scheduler ends the workers then, and gives their jobs back."""
    node = cluster.start("--processes", "1", "--lease-timeout", "5", **APP).await_ready()
    job = escapes_for_good.enqueue()
    pid = int(cluster.await_notes("start", job=job.id)[0]["pid"])
    until(lambda: escaped(node, pid))
    node.signal(signal.SIGSTOP)
    node.await_event("supervisor.lost")
    until(lambda: job.refresh().state is JobState.AVAILABLE, what=node.tail)
    assert not alive(pid)
