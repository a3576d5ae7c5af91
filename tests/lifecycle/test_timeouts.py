"""A timeout ends any handler: by an exception at the deadline, or by SIGKILL within 2 s of deadline and grace."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from qworker import JobState
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

#: As the task and the node below have it (seconds).
TIMEOUT, GRACE = 0.5, 0.5
#: The same where traces have to be seen before they are gone.
SEEN = 2.0
#: What a hard kill may take on top.
LATE = 2.0

#: What a handler leaves in the server, by a part of the query, and among the processes.
QUERIES = {"query": "lent", "own query": "own", "swallowed query": "swallowed"}
ACTIVE = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60) /* ' || %s || ' */'"
COMMANDS = {"subprocess": (b"sleep\x0061\0",), "shell": (b"sleep\x0062\0", b"cat\0")}

INTERRUPTED = ("sleep", "query", "own query", "subprocess", "shell", "regex")
KILLED = ("swallowed query", "GIL", "swallow")


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", *SOONER, "--kill-grace", str(GRACE)).await_ready()


@pytest.mark.parametrize("way", [*INTERRUPTED, *KILLED])
def test_a_stuck_handler_is_ended_and_its_job_run_again(node: Node, module_cluster: Cluster, way: str) -> None:
    def traces() -> Sequence[object]:
        """Return what the handler has started outside of its own process, and still runs."""
        if way in QUERIES:
            return module_cluster.query(ACTIVE, QUERIES[way])
        return [command for pid in node.members() if (command := line(pid)) in COMMANDS.get(way, ())]

    timeout = SEEN if way in (*QUERIES, *COMMANDS) else TIMEOUT
    job = handlers.stuck.options(timeout=timeout).enqueue(way)
    if way in (*QUERIES, *COMMANDS):
        until(traces, SOON)
    neighbours = [shop.quick.enqueue() for _ in range(10)]
    for neighbour in neighbours:
        neighbour.wait(SOON)
    module_cluster.await_notes("start", job=job.id, attempt=2)
    assert job.wait(SOON) == "second attempt"

    until(lambda: not traces(), 5.0 if way in QUERIES else LATE, what=lambda: f"the end of {traces()}")

    if way in INTERRUPTED:
        took = node.await_event("job.retried", job=job.id)["duration"]
        assert timeout <= took < timeout + GRACE + LATE
    else:
        first, second = module_cluster.notes("start", job=job.id)
        assert float(second["at"]) - float(first["at"]) >= timeout + GRACE
        died = node.await_event("child.died", cause="timeout", job=job.id)
        assert died["attempt"] == 1
        (overdue,) = node.events("child.overdue", job=job.id, phase="running")
        assert overdue["overdue_by"] + (logged_at(died) - logged_at(overdue)).total_seconds() < LATE
        assert "handlers.py" in node.log.read_text()  # the stacks

    after = job.refresh()
    (error,) = after.errors
    assert (error["attempt"], error["cause"]) == (1, "timeout")
    assert error["type"] == ("qworker.errors.TimeoutInterrupt" if way in INTERRUPTED else "WorkerDied")
    assert (after.attempt, after.crashes) == (2, 0 if way in INTERRUPTED else 1)
    for neighbour in neighbours:
        beside = neighbour.refresh()
        assert (beside.attempt, beside.crashes, beside.errors) == (1, 0, ())
        assert len(module_cluster.notes("start", job=neighbour.id)) == 1


def test_without_another_attempt_the_job_fails(node: Node) -> None:
    job = handlers.stuck.options(retry=1).enqueue("sleep")
    after = reached(job)
    assert (after.state, after.attempt) == (JobState.FAILED, 1)
    assert after.errors[-1]["message"] == "still running after 0.5 s"
    event = node.await_event("job.failed", job=job.id)
    assert (event["task"], event["attempt"], event["cause"]) == ("stuck", 1, "timeout")


def test_the_failure_of_a_job_is_logged_in_one_shape_whether_its_worker_lives_or_not(node: Node) -> None:
    raised, killed = (handlers.stuck.options(retry=1).enqueue(way) for way in ("sleep", "swallow"))
    found = []
    for job in (raised, killed):
        assert reached(job).state is JobState.FAILED
        found.append(node.await_event("job.failed", job=job.id))
    shapes = [{*event} - {"exception", "component", "pid", "worker"} for event in found]
    assert shapes[0] == shapes[1] >= {"job", "task", "queue", "attempt", "cause", "duration", "error"}
    assert [event["cause"] for event in found] == ["timeout", "timeout"]
    assert [event["error"].partition(":")[0] for event in found] == ["qworker.errors.TimeoutInterrupt", "WorkerDied"]
    assert all(event["duration"] >= 0.5 for event in found)


def test_a_job_may_have_a_timeout_of_its_own_or_none(node: Node, module_cluster: Cluster, tmp_path: Path) -> None:
    short = shop.nap.options(timeout=0.2, retry=1).enqueue(60)
    endless = handlers.stuck.options(timeout=None).enqueue("sleep")
    assert reached(short).errors[-1]["message"] == "still running after 0.2 s"
    module_cluster.await_notes("start", job=endless.id)
    # Until another job that began later has timed out at the task's own limit.
    reached(handlers.stuck.options(retry=1).enqueue("sleep"))
    assert endless.refresh().state is JobState.RUNNING
    assert endless.cancel()
    assert reached(endless).state is JobState.CANCELLED


def test_the_nodes_own_default_holds_for_tasks_that_say_nothing(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.start("--processes", "1", "--timeout", "0.3").await_ready()
    job = handlers.held.options(retry=1).enqueue(str(tmp_path / "never"))
    after = reached(job)
    assert (after.state, after.errors[-1]["cause"]) == (JobState.FAILED, "timeout")
    assert node.stop() == 0


def logged_at(event: dict[str, Any]) -> datetime:
    """Return when an event was logged."""
    return datetime.fromisoformat(event["timestamp"])


def line(pid: int) -> bytes:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
