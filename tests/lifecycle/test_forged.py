"""Rows that were forged or edited: no hook runs that no failure has enqueued, and every job ends."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from qworker import JobState
from tests.database import Database
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.qworkerd.test_values import edited as edited_fixture
from tests.qworkerd.test_values import fill
from tests.waiting import until

edited = edited_fixture


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", *SOONER).await_ready()


def forge(cluster: Cluster, task: str, args: str, is_hook: bool = True) -> int:
    """Insert a job that says it is a failure hook."""
    job: int = cluster.value(
        "INSERT INTO qworker.job (task, args, is_hook) VALUES (%s, %s, %s) RETURNING id", task, args, is_hook
    )
    return job


def state(cluster: Cluster, job: int) -> Any:
    return cluster.value("SELECT state FROM qworker.jobs WHERE id = %s", job)


@pytest.mark.parametrize(
    "about", ["completed", "running", "of another task", "failed with its own hook", "unknown", "none"]
)
def test_a_hook_that_no_failure_has_enqueued_is_refused(
    node: Node, module_cluster: Cluster, tmp_path: Path, about: str
) -> None:
    task, target = "hooked", 0
    if about == "completed":
        job = shop.answer.enqueue()
        job.wait(SOON)
        task, target = "answer", job.id
    elif about == "running":
        job = handlers.held.enqueue(str(tmp_path / "go"))
        reached(job, JobState.RUNNING)
        task, target = "hold", job.id
    elif about == "of another task":
        job = shop.hooked.enqueue()
        module_cluster.await_notes("hook", job=job.id)
        task, target = "hooked_crash", job.id
    elif about == "failed with its own hook":
        job = shop.hooked.enqueue()
        module_cluster.await_notes("hook", job=job.id)
        target = job.id
    elif about == "unknown":
        target = 4_000_000_000
    forged = forge(module_cluster, task, f'{{"job": {target}}}' if target else '{"job": [1, "x"]}')
    event = node.await_event("job.hook_failed", job=forged)
    until(lambda: state(module_cluster, forged) == "discarded", SOON)
    assert event["task"] == task
    assert len(module_cluster.notes("hook", job=target)) == (1 if "hook" in about or "another" in about else 0)
    (tmp_path / "go").touch()


def test_a_hook_whose_task_has_none_does_not_call_the_handler(node: Node, module_cluster: Cluster) -> None:
    forged = forge(module_cluster, "quick", '{"job": 1}')
    node.await_event("job.hook_failed", job=forged)
    assert module_cluster.notes("start", job=forged) == []


def test_a_node_with_burst_ends_beside_priorities_that_it_never_claims(cluster: Cluster) -> None:
    cluster.query("INSERT INTO qworker.job (task, priority) VALUES ('quick', -95), ('quick', 10), ('quick', 105)")
    job = shop.quick.enqueue()
    assert cluster.start("--processes", "1", "--burst", *SOONER).wait() == 0
    assert job.refresh().state is JobState.COMPLETED


def test_a_node_that_is_to_end_when_all_is_done_ends_beside_forged_states(cluster: Cluster, tmp_path: Path) -> None:
    cluster.query(
        "INSERT INTO qworker.job (task, state, seq, token, node) VALUES ('quick', 'running', 1, NULL, NULL),"
        " ('quick', 'running', 2, 7, NULL), ('quick', 'running', 3, NULL, 4711), ('quick', 'running', 4, 7, 4711),"
        " ('quick', 'available', 0, NULL, NULL), ('quick', 'available', -5, NULL, NULL),"
        " ('quick', 'blocked', 5, NULL, NULL), ('quick', 'completed', 6, NULL, NULL)"
    )
    job = handlers.held.enqueue(str(tmp_path / "go"))
    node = cluster.start("--processes", "1", "--burst", *SOONER)
    reached(job, JobState.RUNNING)
    # On the living node, too.
    (number,) = cluster.query("SELECT id FROM qworker.node")[0]
    cluster.query(
        "INSERT INTO qworker.job (task, state, node, token, claimed_at) VALUES ('quick', 'running', %s, NULL, now()),"
        " ('quick', 'running', %s, 9, now() - interval '1 hour')", number, number,
    )  # fmt: skip
    (tmp_path / "go").touch()
    assert node.wait(60.0) == 0, node.tail()
    rows = cluster.query("SELECT state, count(*) FROM qworker.jobs WHERE task = 'quick' GROUP BY state ORDER BY state")
    assert rows == [("completed", 8), ("discarded", 2)]


def test_whatever_stands_in_a_row_workers_run_the_others(edited: Database, tmp_path: Path) -> None:
    with psycopg.connect(edited.dsn, autocommit=True) as conn:
        fill(conn)
        conn.execute("INSERT INTO qworker.job (task, seq) VALUES ('quick', 9223372036854775807)")
    with Cluster(edited, tmp_path) as cluster:
        node = cluster.start("--processes", "2", "--queues", "default,second", *SOONER).await_ready()
        jobs = [
            shop.answer.options(queue=queue, priority=priority).enqueue(priority)
            for queue in ("default", "second") for priority in range(10)
        ]  # fmt: skip
        until(lambda: all(job.refresh().state is JobState.COMPLETED for job in jobs), 60.0, what=node.tail)
        assert node.events("acknowledge.died") == []
        assert node.events("process.died") == []
        assert [event for event in node.events("child.died") if event.get("cause") == "stalled"] == []
        assert node.stop() == 0
