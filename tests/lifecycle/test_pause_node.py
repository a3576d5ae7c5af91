"""A paused node: it finishes what runs, claims nothing, and stays so until it is resumed or ends."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qworker import App, JobState
from tests.lifecycle import application as shop
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.handlers import held
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy
from tests.lifecycle.test_pause import HEARTBEAT, IN_STATE, await_heartbeats
from tests.waiting import until


def number(node: Node) -> int:
    """Return the id of a node as it has registered last."""
    return int(node.await_event("node.registered")["node"])


def pause(cluster: Cluster, node: Node, **options: Any) -> dict[str, Any]:
    """Pause a node; return what it has logged, which took it only a few heartbeats."""
    start, before = cluster.value(HEARTBEAT), len(node.events("node.paused"))
    assert shop.app.admin.pause_nodes(number(node), **options) == [number(node)]
    found = node.await_event("node.paused", count=before + 1)
    assert cluster.value(HEARTBEAT) <= start + 4
    return found


def resume(node: Node) -> None:
    before = len(node.events("node.resumed"))
    assert shop.app.admin.resume_nodes(number(node)) == [number(node)]
    node.await_event("node.resumed", count=before + 1)


def test_a_paused_node_finishes_what_runs_and_leaves_the_rest_to_others(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    node = cluster.start("--processes", "2").await_ready()
    running = held.enqueue(str(go))
    cluster.await_notes("start", job=running.id)
    event = pause(cluster, node, reason="new kernel")
    assert (event["reason"], event["node"]) == ("new kernel", number(node))
    assert f"workers resume {number(node)}" in event["hint"]
    waiting = [shop.quick.enqueue() for _ in range(10)] + [shop.quick.options(delay=0.3).enqueue()]
    until(lambda: cluster.value(IN_STATE, "available") == 11, what="promotion, which goes on")
    await_heartbeats(cluster)
    assert {note["job"] for note in cluster.notes("start")} == {str(running.id)}
    go.touch()
    assert reached(running).state is JobState.COMPLETED
    other = cluster.start("--processes", "1").await_ready()
    assert {reached(job).state for job in waiting} == {JobState.COMPLETED}
    assert {int(note["pid"]) for note in cluster.notes("start")[1:]} == set(other.children("worker"))
    other.stop()
    resume(node)
    assert reached(shop.quick.enqueue()).state is JobState.COMPLETED
    assert node.stop() == 0


def test_a_notification_wakes_no_paused_node_and_one_after_the_resume_does(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    pause(cluster, node)
    await_heartbeats(cluster)
    assert cluster.value("SELECT count(*) FROM qworker.idle_node") == 0
    resume(node)
    until(lambda: cluster.value("SELECT count(*) FROM qworker.idle_node"), what="the node to be idle again")
    assert reached(shop.quick.enqueue()).state is JobState.COMPLETED


def test_claimed_jobs_that_have_not_started_are_released_and_run_after_the_resume(cluster: Cluster) -> None:
    # After many short jobs the worker claims many at once: about 250 jobs of 20 ms each.
    shop.noop.enqueue_many([()] * 3000)
    ids = shop.nap.enqueue_many([(0.02,)] * 300, ids=True)
    node = cluster.start("--processes", "1").await_ready()
    cluster.await_notes("start")
    pause(cluster, node)
    until(lambda: cluster.value(IN_STATE, "running") == 0)
    started = len(cluster.notes("start"))
    assert started < 100
    await_heartbeats(cluster)
    assert len(cluster.notes("start")) == started
    resume(node)
    cluster.await_notes("end", 300)
    assert sorted(int(note["job"]) for note in cluster.notes("start")) == sorted(ids)


def test_a_lost_notification_delays_a_pause_until_the_next_heartbeat(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    start = cluster.value(HEARTBEAT)
    cluster.query(
        "INSERT INTO qworker.paused_node (node, paused_by) VALUES (%s, 'alice')", number(node)
    )  # as `workers pause`, but for the notification
    assert node.await_event("node.paused")["by"] == "alice"
    assert cluster.value(HEARTBEAT) <= start + 3
    job = shop.quick.enqueue()
    await_heartbeats(cluster)
    assert job.refresh().state is JobState.AVAILABLE


@pytest.mark.parametrize("seat", ["worker 1", "scheduler"])
def test_a_process_that_is_replaced_stays_paused(cluster: Cluster, seat: str) -> None:
    node = cluster.start("--processes", "1").await_ready()
    pause(cluster, node, reason="deploy")
    before = node.spawned(seat)
    os.kill(before, signal.SIGKILL)
    until(lambda: node.spawned(seat) != before)
    job = shop.quick.enqueue()
    until(lambda: node.children(seat.partition(" ")[0]))
    await_heartbeats(cluster, 3)
    assert job.refresh().state is JobState.AVAILABLE
    assert len(node.events("node.paused")) == 1, "a new scheduler finds the pause in memory"
    resume(node)
    assert reached(job).state is JobState.COMPLETED


def test_a_node_without_its_database_stays_paused_and_learns_what_has_changed(cluster: Cluster) -> None:
    with Proxy(cluster.database.dsn) as proxy:
        node = cluster.start("--processes", "1", "--lease-timeout", "60", dsn=proxy.dsn).await_ready()
        pause(cluster, node)
        job = shop.quick.enqueue()
        proxy.refuse()
        node.await_event("database.disconnected")
        shop.app.admin.resume_nodes(number(node))
        assert not node.events("node.resumed")
        proxy.flow()
        node.await_event("node.resumed")
        assert reached(job).state is JobState.COMPLETED
        proxy.refuse()
        node.await_event("database.disconnected", count=2)
        shop.app.admin.pause_nodes(number(node), reason="meanwhile")
        proxy.flow()
        assert node.await_event("node.paused", count=2)["reason"] == "meanwhile"


def test_a_node_that_was_declared_dead_registers_again_as_paused(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    pause(cluster, node, reason="new kernel")
    (found,) = shop.app.admin.nodes()
    job = shop.quick.enqueue()
    cluster.query("DELETE FROM qworker.node")
    node.await_event("node.declared_dead")
    node.await_event("node.registered", count=2)
    await_heartbeats(cluster)
    (again,) = shop.app.admin.nodes()
    assert again.id != found.id
    assert again.paused == found.paused
    assert again.paused is not None
    assert job.refresh().state is JobState.AVAILABLE
    assert not cluster.notes("start")
    resume(node)
    assert reached(job).state is JobState.COMPLETED


def test_a_node_that_is_started_again_is_another_one(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    pause(cluster, node)
    name = shop.app.admin.nodes()[0].name
    node.destroy()  # as a machine that dies: its row, with its pause, is left behind
    job = shop.quick.enqueue()
    other = cluster.start("--processes", "1").await_ready()
    # In a container, each supervisor has the pid 1, and so the same name.
    cluster.query("UPDATE qworker.node SET name = %s WHERE id = %s", name, number(other))
    assert reached(job).state is JobState.COMPLETED
    dead, live = shop.app.admin.nodes()
    assert (dead.name, bool(dead.paused)) == (live.name, True)
    assert live.paused is None
    cluster.query("UPDATE qworker.node SET heartbeat_at = now() - interval '1 hour' WHERE id = %s", dead.id)
    assert shop.app.admin.pause_nodes(name) == [live.id], "the live one of two nodes with this name"
    other.await_event("node.paused")


def test_a_paused_node_with_burst_waits_for_what_waits(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = held.enqueue(str(go))
    job = shop.quick.options(delay=0.1).enqueue()
    node = cluster.start("--processes", "1", "--burst", *SOONER)
    cluster.await_notes("start", job=running.id)
    pause(cluster, node)
    reached(job, JobState.AVAILABLE)
    go.touch()
    assert reached(running).state is JobState.COMPLETED
    await_heartbeats(cluster, 3)
    assert node.process.poll() is None
    assert job.refresh().state is JobState.AVAILABLE
    resume(node)
    assert node.wait() == 0
    assert job.refresh().state is JobState.COMPLETED


def test_a_paused_node_with_burst_ends_when_nothing_is_left(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = held.enqueue(str(go))
    node = cluster.start("--processes", "1", "--burst", *SOONER)
    cluster.await_notes("start", job=running.id)
    pause(cluster, node)
    go.touch()
    assert node.wait() == 0
    assert running.refresh().state is JobState.COMPLETED
    assert not node.events("queue.skipped")


def test_a_paused_node_with_a_running_job_stops_in_good_order(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    node = cluster.start("--processes", "2").await_ready()
    running = held.enqueue(str(go))
    cluster.await_notes("start", job=running.id)
    pause(cluster, node)
    job = shop.quick.enqueue()
    node.signal(signal.SIGTERM)
    node.await_event("supervisor.draining")
    go.touch()
    assert node.wait() == 0
    assert running.refresh().state is JobState.COMPLETED
    assert job.refresh().state is JobState.AVAILABLE
    assert cluster.value("SELECT count(*) FROM qworker.paused_node") == 0


def test_the_inline_worker_can_be_paused(cluster: Cluster) -> None:
    node = cluster.start("--inline")
    shop.quick.enqueue().wait(SOON)
    pause(cluster, node)
    job = shop.quick.enqueue()
    await_heartbeats(cluster)
    assert job.refresh().state is JobState.AVAILABLE
    resume(node)
    assert reached(job).state is JobState.COMPLETED
    assert node.stop() == 0


def test_a_paused_queue_stays_paused_when_its_node_is_resumed(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", "--queues", "default,other").await_ready()
    pause(cluster, node)
    shop.app.queue("default").pause()
    node.await_event("queue.paused", queue="default")
    jobs: Callable[[str], Any] = lambda queue: shop.quick.options(queue=queue).enqueue()  # noqa: E731
    kept, other = jobs("default"), jobs("other")
    resume(node)
    assert reached(other).state is JobState.COMPLETED
    await_heartbeats(cluster)
    assert kept.refresh().state is JobState.AVAILABLE
    app = App(cluster.database.dsn)
    app.queue("default").resume()
    app.close()
    assert reached(kept).state is JobState.COMPLETED
