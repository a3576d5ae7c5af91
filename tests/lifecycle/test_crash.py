"""A worker that is killed costs its running job one crash, and nobody else anything."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from qworker import Job, JobState
from qworker.claims import Claims
from qworkerd.shared.claim import new_token
from tests.lifecycle.application import app, quick, segfault
from tests.lifecycle.cluster import PATIENT, Cluster, reached
from tests.lifecycle.handlers import held
from tests.lifecycle.hostile import Orders
from tests.lifecycle.node import Node
from tests.waiting import until

HOSTILE = "tests.lifecycle.hostile:app"
suicide = app.get_task("suicide")


@contextmanager
def claims_held_up(cluster: Cluster, *, name: str | None = None) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Have every claim wait in the server, its rows locked, until the yielded connection ends its transaction.

    With a name the session loses its own, and is not found when its client is recovered.
    """
    rename = f"PERFORM set_config('application_name', '{name}', true);" if name else ""
    cluster.query(f"""
        CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {rename} PERFORM pg_advisory_xact_lock_shared(4711); RETURN new; END $$
    """)
    cluster.query("""
        CREATE TRIGGER hold_up BEFORE UPDATE ON qworker.job FOR EACH ROW
          WHEN (old.state = 'available' AND new.state = 'running') EXECUTE FUNCTION hold_up()
    """)
    try:
        with cluster.connect() as conn:
            conn.execute("SELECT pg_advisory_xact_lock(4711)")
            yield conn
    finally:
        cluster.query("DROP FUNCTION hold_up CASCADE")


def waiting_claims(cluster: Cluster) -> int:
    return int(cluster.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


class Unknown(NamedTuple):
    """Jobs that the database says a node runs, and that none of its workers knows of; and one that is really run."""

    node: Node
    late: Job
    lost: Job
    running: Job


@pytest.fixture(scope="module", autouse=True)
def unknown(module_cluster: Cluster) -> Unknown:
    """One claim commits after its worker has been recovered; the answer to another one was lost on its way.

    It begins first and is looked at last: two looks that are five seconds apart have to find such claims.
    """
    cluster = module_cluster
    node = cluster.start("--processes", "2").await_ready()
    until(lambda: len(node.children("worker")) == 2)
    running = held.enqueue(str(cluster.folder / "go"))
    (note,) = cluster.await_notes("start", job=running.id)
    (idle,) = {*node.children("worker")} - {int(note["pid"])}
    with claims_held_up(cluster, name="shop") as conn:
        late = quick.enqueue()
        until(lambda: waiting_claims(cluster) == 1)
        os.kill(idle, signal.SIGKILL)
        node.await_event("worker.jobs_recovered", worker_pid=idle)
        conn.rollback()
        until(lambda: late.refresh().state is JobState.RUNNING, what="the commit of the dead worker's claim")
        assert not cluster.notes("start", job=late.id)
    lost = quick.options(queue="elsewhere").enqueue()
    with cluster.connect() as conn, conn.transaction():
        Claims().claim(
            conn, node=node.await_event("node.registered")["node"], token=new_token(), queues=["elsewhere"],
            priorities=[5], cursors=[0], limit=1,
        )  # fmt: skip
    assert lost.refresh().state is JobState.RUNNING
    return Unknown(node, late, lost, running)


def test_the_job_of_a_killed_worker_runs_again_within_a_second_and_its_neighbours_run_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    node = cluster.start("--processes", "3").await_ready()
    neighbours = [held.enqueue(str(tmp_path / "go")) for _ in range(2)]
    cluster.await_notes("start", 2)
    job = suicide.enqueue(seconds=0.2)
    _, second = cluster.await_notes("start", 2, job=job.id)
    (killed,) = cluster.notes("suicide", job=job.id)
    assert float(second["at"]) - float(killed["at"]) < 1
    done = reached(job)
    assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 2, 1)
    assert done.errors[0]["cause"] == "signal:KILL"
    (tmp_path / "go").touch()
    for neighbour in neighbours:
        done = reached(neighbour)
        assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 1, 0)
        assert len(cluster.notes("start", job=neighbour.id)) == 1
    assert len(node.events("child.died")) == 1


def test_a_crash_is_on_record_with_where_it_happened_and_what_the_worker_had_used(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    done = reached(segfault.enqueue(once=True))
    assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 2, 1)
    (error,) = done.errors
    assert (error["type"], error["cause"], error["phase"]) == ("WorkerDied", "signal:SEGV", "running")
    assert error["traceback"].startswith("Fatal Python error: Segmentation fault")
    assert "in segfault" in error["traceback"]
    assert 0 <= error["ran"] < 10
    assert error["maxrss_mib"] > 10
    assert error["cpu"] > 0
    assert node.await_event("child.died")["stacks"] == error["traceback"]


def test_a_worker_killed_in_the_middle_of_a_batch_leaves_every_job_where_it_belongs(
    cluster: Cluster, tmp_path: Path
) -> None:
    orders = Orders(tmp_path / "orders")
    environment = {"QWORKER_APP": HOSTILE, "QWORKER_TEST_BOOT": str(orders.path), **PATIENT}
    node = cluster.start("--processes", "1", **environment).await_ready()
    orders.give("hang")  # no other worker, until the dead one's jobs have been looked at
    # The batch has grown to 64 by the hundredth job: the worker dies with finished, running and unstarted ones.
    with cluster.connect() as conn, conn.transaction():
        before = quick.using(conn).enqueue_many([()] * 99, ids=True)
        fatal = suicide.using(conn).enqueue()
        after = quick.using(conn).enqueue_many([()] * 100, ids=True)
    positions = dict(cluster.query("SELECT id, seq FROM qworker.job"))
    node.await_event("worker.jobs_recovered")
    cluster.await_notes("boot", order="hang")

    started = {int(note["job"]) for note in cluster.notes("start")}
    assert started == {*before, fatal.id}
    left = cluster.query(
        "SELECT id, seq, state::text, attempt, crashes, token IS NULL FROM qworker.job WHERE id <> %s ORDER BY seq",
        fatal.id,
    )
    assert left == [(job, positions[job], "available", 0, 0, True) for job in after]
    assert cluster.query("SELECT id FROM qworker.job_history ORDER BY id") == [(job,) for job in sorted(before)]
    assert cluster.query("SELECT seq, state::text, attempt, crashes FROM qworker.job WHERE id = %s", fatal.id) == [
        (positions[fatal.id], "available", 1, 1)
    ]

    orders.recall()
    os.kill(node.spawned("worker 1"), signal.SIGKILL)
    done = [reached(job) for job in (fatal, app.job(after[-1]))]
    assert {job.state for job in done} == {JobState.COMPLETED}
    order = [int(note["job"]) for note in cluster.notes("start")]
    assert order == [*before, fatal.id, fatal.id, *after]


def test_a_job_that_kills_three_workers_fails_with_the_cause_and_twenty_beside_it_are_not_charged(
    cluster: Cluster,
) -> None:
    cluster.start("--processes", "2").await_ready()
    with cluster.connect() as conn, conn.transaction():
        beside = quick.using(conn).enqueue_many([()] * 10, ids=True)
        fatal = suicide.using(conn).enqueue(times=9)
        beside += quick.using(conn).enqueue_many([()] * 10, ids=True)
    failed = reached(fatal)
    assert (failed.state, failed.attempt, failed.crashes) == (JobState.FAILED, 3, 3)
    assert [error["cause"] for error in failed.errors] == ["signal:KILL"] * 3
    assert "died" in failed.errors[-1]["message"]
    until(lambda: cluster.value("SELECT count(*) FROM qworker.job_history") == 20)
    assert cluster.query("SELECT DISTINCT attempt, crashes, node_losses FROM qworker.job_history") == [(1, 0, 0)]
    assert sorted(int(note["job"]) for note in cluster.notes("start") if note["task"] == "quick") == beside


def test_a_worker_killed_during_its_claim_takes_no_job_with_it(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1").await_ready()
    with claims_held_up(cluster) as conn:
        job = quick.enqueue()
        until(lambda: waiting_claims(cluster) == 1)
        (worker,) = node.children("worker")
        os.kill(worker, signal.SIGKILL)
        node.await_event("worker.jobs_recovered", worker_pid=worker)
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
        until(lambda: not cluster.value(sessions, f"%.{worker}.%"), what="the end of the dead worker's sessions")
        conn.rollback()
        done = reached(job, timeout=3)
    assert (done.state, done.attempt, done.crashes, done.node_losses) == (JobState.COMPLETED, 1, 0, 0)


def test_claims_that_no_worker_knows_of_are_undone_and_no_others(module_cluster: Cluster, unknown: Unknown) -> None:
    done = reached(unknown.late, timeout=12)
    assert (done.state, done.attempt, done.crashes, done.node_losses) == (JobState.COMPLETED, 1, 0, 0)
    undone = reached(unknown.lost, JobState.AVAILABLE, timeout=12)
    assert (undone.attempt, undone.crashes, undone.node_losses) == (0, 0, 0)
    (module_cluster.folder / "go").touch()
    assert reached(unknown.running).attempt == 1
    node = unknown.node
    until(lambda: sum(event["jobs"] for event in node.events("jobs.reconciled")) == 2, what=node.tail)
    assert len(module_cluster.notes("start")) == 2
