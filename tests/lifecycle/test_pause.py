"""Paused queues: no job starts, none is lost, and resuming runs them in order."""

import os
import signal
from typing import Any

import pytest

from qworker import App, JobState
from tests.lifecycle import application as shop
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.lifecycle.pgbouncer import PROGRAM, PgBouncer
from tests.waiting import until

IN_STATE = "SELECT count(*) FROM qworker.job WHERE state::text = %s"
HEARTBEAT = "SELECT min(heartbeat) FROM qworker.node"


def await_heartbeats(cluster: Cluster, count: int = 2) -> None:
    """Wait until every node has renewed its lease so many times, and so has polled as often."""
    start = cluster.value(HEARTBEAT)
    until(lambda: cluster.value(HEARTBEAT) >= start + count)


def soon(cluster: Cluster, node: Node, event: str, **facts: Any) -> dict[str, Any]:
    """Wait until a node has noticed what was changed just now; it has renewed its lease only a few times until then."""
    start = cluster.value(HEARTBEAT)
    found = node.await_event(event, queue="default", **facts)
    assert cluster.value(HEARTBEAT) <= start + 4
    return found


def test_a_pause_reaches_every_node_and_a_resume_runs_everything_in_order(cluster: Cluster) -> None:
    nodes = [cluster.start("--processes", "1").await_ready() for _ in range(2)]
    queue = shop.app.queue("default")
    assert queue.pause(reason="upstream down", by="alice")
    for node in nodes:
        event = soon(cluster, node, "queue.paused", by="alice")
        assert event["reason"] == "upstream down"
    jobs = [shop.quick.enqueue() for _ in range(20)] + [shop.quick.options(delay=0.5).enqueue()]
    until(lambda: cluster.value(IN_STATE, "available") == 21)
    await_heartbeats(cluster)
    assert not cluster.notes("start")
    nodes[1].stop()
    assert queue.resume()
    soon(cluster, nodes[0], "queue.resumed")
    assert {reached(job).state for job in jobs} == {JobState.COMPLETED}
    assert [int(note["job"]) for note in cluster.notes("start")] == [job.id for job in jobs]
    assert queue.paused is None


def test_a_pause_under_load_loses_no_job(cluster: Cluster) -> None:
    ids = shop.nap.enqueue_many([(0.02,)] * 300, ids=True)
    node = cluster.start("--processes", "2").await_ready()
    cluster.await_notes("start", 10)
    shop.app.queue("default").pause()
    soon(cluster, node, "queue.paused")
    until(lambda: cluster.value(IN_STATE, "running") == 0)
    started = len(cluster.notes("start"))
    await_heartbeats(cluster)
    assert len(cluster.notes("start")) == started < 300
    shop.app.queue("default").resume()
    cluster.await_notes("end", 300)
    assert sorted(int(note["job"]) for note in cluster.notes("start")) == sorted(ids)


def test_claimed_jobs_that_have_not_started_are_released(cluster: Cluster) -> None:
    # After many short jobs the worker claims many at once: about 250 jobs of 20 ms each.
    shop.noop.enqueue_many([()] * 3000)
    shop.nap.enqueue_many([(0.02,)] * 300)
    node = cluster.start("--processes", "1").await_ready()
    cluster.await_notes("start")
    shop.app.queue("default").pause()
    soon(cluster, node, "queue.paused")
    until(lambda: cluster.value(IN_STATE, "running") == 0)
    assert len(cluster.notes("start")) < 100


def test_a_node_that_starts_while_its_queue_is_paused_runs_nothing(cluster: Cluster) -> None:
    job = shop.quick.enqueue()
    shop.app.queue("default").pause()
    node = cluster.start("--processes", "1", "--burst", *SOONER)
    assert node.wait() == 0
    assert node.events("queue.skipped", queues=["default"])
    assert job.refresh().state is JobState.AVAILABLE
    assert not cluster.notes("start")


def test_other_queues_of_the_node_continue(cluster: Cluster) -> None:
    shop.app.queue("urgent").pause()
    node = cluster.start("--processes", "1", "--queues", "urgent,default,low").await_ready()
    held = shop.quick.options(queue="urgent").enqueue_many([()] * 50, ids=True)
    others = [shop.quick.options(queue=queue).enqueue() for queue in ("low", "default") for _ in range(20)]
    for job in others:
        job.wait(SOON)
    assert {shop.app.job(id_).state for id_ in held} == {JobState.AVAILABLE}
    shop.app.queue("low").pause()
    node.await_event("queue.paused", queue="low")
    low = shop.quick.options(queue="low").enqueue()
    shop.app.queue("urgent").resume()
    cluster.await_notes("end", 90)
    assert low.refresh().state is JobState.AVAILABLE


def test_retried_jobs_wait_as_well(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    failed = reached(shop.hopeless.enqueue())
    later = shop.later.enqueue(0.5)
    reached(later, JobState.SCHEDULED)
    shop.app.queue("default").pause()
    node.await_event("queue.paused")
    failed.retry()
    until(lambda: cluster.value(IN_STATE, "available") == 2)
    await_heartbeats(cluster)
    assert len(cluster.notes("start")) == 2
    shop.app.queue("default").resume()
    assert reached(later).state is JobState.COMPLETED
    assert reached(failed).state is JobState.FAILED
    assert len(cluster.notes("start")) == 4


def test_a_pause_survives_schedulers_and_nodes(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    os.kill(node.spawned("scheduler"), signal.SIGKILL)
    shop.app.queue("default").pause()
    node.await_event("queue.paused")
    job = shop.quick.enqueue()
    os.kill(node.spawned("scheduler"), signal.SIGKILL)
    await_heartbeats(cluster)
    assert len(node.events("queue.paused")) == 1, "the new scheduler finds the pause in memory"
    assert node.stop() == 0
    node = cluster.start("--processes", "1").await_ready()
    node.await_event("queue.paused")
    await_heartbeats(cluster)
    assert not cluster.notes("start")
    shop.app.queue("default").resume()
    assert reached(job).state is JobState.COMPLETED


def test_a_paused_queue_holds_up_the_inline_worker(cluster: Cluster) -> None:
    shop.app.queue("default").pause()
    job = shop.quick.enqueue()
    node = cluster.start("--inline", "--queues", "default,other")
    shop.quick.options(queue="other").enqueue().wait(SOON)
    await_heartbeats(cluster)
    assert job.refresh().state is JobState.AVAILABLE
    shop.app.queue("default").resume()
    assert reached(job).state is JobState.COMPLETED
    assert node.stop() == 0


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
def test_pauses_reach_nodes_behind_pgbouncer(cluster: Cluster) -> None:
    with PgBouncer(cluster.database.dsn) as pgbouncer:
        node = cluster.start("--processes", "1", dsn=pgbouncer.dsn).await_ready()
        app = App(pgbouncer.dsn)
        app.queue("default").pause(reason="upstream down")
        assert soon(cluster, node, "queue.paused")["reason"] == "upstream down"
        job = shop.quick.enqueue()
        await_heartbeats(cluster)
        assert job.refresh().state is JobState.AVAILABLE
        app.queue("default").resume()
        assert reached(job).state is JobState.COMPLETED
        app.close()
        assert node.stop() == 0
