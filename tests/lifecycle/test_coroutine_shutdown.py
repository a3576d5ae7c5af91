"""Asynchronous handlers at the end of a node."""

import signal

import pytest

from qworker import JobState
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.coroutines import ends

APP = {"QWORKER_APP": "tests.lifecycle.coroutines:app"}


@pytest.mark.parametrize("way", ["cleans up", "blocks in a callback"])
def test_a_shutdown_gives_the_job_back(cluster: Cluster, way: str) -> None:
    node = cluster.start("--processes", "1", "--shutdown-timeout", "1", **APP).await_ready()
    job = ends.options(timeout=60).enqueue(way)
    cluster.await_notes("started", job=job.id)
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert (job.refresh().state, job.refresh().attempt) == (JobState.AVAILABLE, 0), node.tail()
    assert bool(cluster.notes("cleaned", job=job.id)) is (way == "cleans up")
