"""The supervisor keeps its children: it boots them, replaces them, and gives up on none."""

import os
import signal
import sys
from pathlib import Path

import pytest

from qworker import JobState
from tests.lifecycle import hostile
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOON, Cluster
from tests.lifecycle.hostile import Orders
from tests.lifecycle.node import Node
from tests.waiting import until

APP = "tests.lifecycle.hostile:app"


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path / "orders")


def start(cluster: Cluster, orders: Orders, *options: str) -> Node:
    return cluster.start("--processes", "1", *options, QWORKER_APP=APP, QWORKER_TEST_BOOT=str(orders.path))


def test_it_is_ready_with_its_first_worker_and_boots_them_all(cluster: Cluster) -> None:
    node = cluster.start("--processes", "3").await_ready()
    until(lambda: len(node.children("worker")) == 3)
    children = node.children("worker") + node.children("scheduler")
    assert len(children) == 4
    assert [os.getpgid(pid) for pid in children] == children, "each leads a process group of its own"
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
    assert names == {"qworker-sched", "qworker-1", "qworker-2", "qworker-3"}, "as ps shows them"
    until(lambda: {event["child_pid"] for event in node.events("child.spawned")} == {*children})
    assert node.stop() == 0
    assert node.members() == []


def test_an_idle_worker_that_is_killed_is_replaced_at_once(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    (worker,) = node.children("worker")
    os.kill(worker, signal.SIGKILL)
    died = node.await_event("child.died", child_pid=worker)
    assert (died["cause"], died["respawn_in"]) == ("signal:KILL", 0)
    assert quick.enqueue().wait(SOON) is None
    assert node.children("worker") != [worker]


def test_workers_that_die_at_boot_are_replaced_ever_later_and_then_at_once_again(
    cluster: Cluster, orders: Orders
) -> None:
    node = start(cluster, orders).await_ready()
    orders.give("exit 3")
    os.kill(node.children("worker")[0], signal.SIGKILL)
    node.await_event("child.died", cause="exit:3", count=2)
    delays = [event["respawn_in"] for event in node.events("child.died")]
    assert delays[0] == 0, "the first death may be chance"
    assert 0.5 <= delays[1] <= 1 <= delays[2] <= 2
    orders.recall()
    # Whoever dies by a job is not to blame: the habit is forgotten.
    job = hostile.app.get_task("suicide").enqueue()
    job.wait(15)
    died = node.await_event("child.died", cause="signal:KILL", job=job.id)
    assert died["respawn_in"] == 0


def test_a_child_that_hangs_at_boot_is_killed_and_shows_where_it_hung(cluster: Cluster, orders: Orders) -> None:
    node = start(cluster, orders, "--boot-timeout", "1").await_ready()
    orders.give("hang")
    (worker,) = node.children("worker")
    os.kill(worker, signal.SIGKILL)
    hung = int(cluster.await_notes("boot", order="hang")[0]["pid"])
    orders.recall()
    assert node.await_event("child.overdue", child_pid=hung)["phase"] == "booting"
    died = node.await_event("child.died", child_pid=hung)
    assert died["cause"] == "stalled"
    assert 1 <= died["uptime"] < 10
    assert "hostile.py" in node.log.read_text(), "its stack"
    assert quick.enqueue().wait(SOON) is None


def test_an_application_that_cannot_be_imported_ends_the_node_before_it_starts(cluster: Cluster) -> None:
    node = cluster.start(QWORKER_APP="tests.lifecycle.nowhere:app")
    assert node.wait() == 78
    assert "nowhere" in node.log.read_text()
    assert node.events("supervisor.started") == []


def test_a_child_that_finds_its_configuration_unfit_ends_a_node_that_was_never_ready(
    cluster: Cluster, orders: Orders
) -> None:
    orders.give("exit 78")
    node = start(cluster, orders)
    assert node.wait() == 78
    assert node.members() == []


def test_later_the_same_is_an_event_and_the_node_goes_on(cluster: Cluster, orders: Orders) -> None:
    node = start(cluster, orders).await_ready()
    orders.give("exit 78")
    os.kill(node.children("worker")[0], signal.SIGKILL)
    node.await_event("child.died", cause="exit:78")
    orders.recall()
    assert quick.enqueue().wait(SOON) is None
    assert node.stop() == 0


def test_hup_is_logged_and_ignored(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    node.signal(signal.SIGHUP)
    node.await_event("supervisor.signalled", signal="SIGHUP")
    assert quick.enqueue().wait(SOON) is None
    assert node.stop() == 0


@pytest.mark.parametrize("through", [("nohup",), ("env", "--ignore-signal=CHLD", "--ignore-signal=HUP")])
def test_signals_it_was_started_to_ignore_do_not_keep_it_from_its_children(
    cluster: Cluster, through: tuple[str, ...]
) -> None:
    node = cluster.start("--processes", "1", through=through).await_ready()
    for pid in node.members():
        os.kill(pid, signal.SIGHUP)
    os.kill(node.children("worker")[0], signal.SIGKILL)
    node.await_event("child.died", cause="signal:KILL")
    assert quick.enqueue().wait(SOON) is None
    assert node.stop() == 0
    assert node.events("supervisor.signalled", signal="SIGHUP") == []
    assert node.members() == []


#: Become who inherits orphans, as process 1 of a container does (prctl(2)), and then the command.
SUBREAPER = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_orphans_it_inherits_are_reaped(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", through=(sys.executable, "-c", SUBREAPER), QWORKER_APP=APP).await_ready()
    hostile.orphans.enqueue().wait(SOON)
    (orphan,) = cluster.notes("orphan")
    # A zombie would still be there.
    until(lambda: not Path("/proc", orphan["pid"]).exists(), what="the orphan's burial")
    assert node.stop() == 0


def test_a_handler_that_holds_the_interpreter_leaves_its_stack_on_record_before_it_is_killed(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", "--kill-grace", "0.2").await_ready()
    job = hostile.app.get_task("stuck").enqueue("GIL")
    overdue = node.await_event("child.overdue")
    assert (overdue["phase"], overdue["job"], overdue["task"]) == ("running", job.id, "stuck")
    died = node.await_event("child.died", child_pid=overdue["child_pid"], cause="timeout")
    assert "most recent call first" in died["stacks"]
    assert "in stuck" in died["stacks"]
    assert job.wait(SOON) == "second attempt"
    (error,) = job.refresh().errors
    assert (error["cause"], error["phase"], error["traceback"]) == ("timeout", "running", died["stacks"])
    assert 0.5 < error["ran"] < 10
    assert (error["maxrss_mib"], error["cpu"]) == (died["maxrss_mib"], died["cpu"])
    assert error["cpu"] > 0.1  # beside others that want the processor


def test_what_jobs_have_started_does_not_outlive_a_supervisor_that_is_killed(cluster: Cluster) -> None:
    """The kernel kills the workers; the scheduler, orphaned, what was in their process groups."""
    node = cluster.start("--processes", "1").await_ready()
    job = hostile.app.get_task("stuck").options(timeout=60).enqueue("shell")
    cluster.await_notes("start", job=job.id)
    (worker,) = node.children("worker")
    until(lambda: len([pid for pid in node.members() if os.getpgid(pid) == worker]) >= 3, what="shell, sleep and cat")
    node.signal(signal.SIGKILL)
    until(lambda: not node.members(), 4, what="the end of all")
    assert (after := job.refresh()).state is JobState.AVAILABLE
    assert (after.attempt, after.node_losses) == (0, 1)
