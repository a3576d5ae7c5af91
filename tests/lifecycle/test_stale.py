"""What a worker writes about a job that is no longer its own changes nothing; what others have locked can wait."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworker import JobState
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

#: The token of another claim.
OTHER = 42
ROW = "SELECT state::text, token, node, attempt, crashes, node_losses, errors, run_at FROM qworker.job WHERE id = %s"


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "1").await_ready()


@pytest.fixture
def elsewhere(module_cluster: Cluster) -> Iterator[int]:
    """Another node, alive as far as anybody can tell; what it has taken is gone at the end."""
    number = module_cluster.value(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds)"
        " VALUES ('elsewhere', '0', '{}', 1, 30)"
        " RETURNING id"
    )
    yield number
    module_cluster.query("DELETE FROM qworker.job WHERE node = %s", number)
    module_cluster.query("DELETE FROM qworker.node WHERE id = %s", number)


@pytest.fixture
def stranger(module_cluster: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A transaction that somebody leaves open; rolled back at the end."""
    with psycopg.connect(module_cluster.database.dsn) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("end", ["acknowledge", "retry", "fail", "snooze", "finish"])
def test_the_end_of_a_claim_that_is_over_changes_nothing_and_is_reported(
    node: Node, module_cluster: Cluster, elsewhere: int, tmp_path: Path, end: str
) -> None:
    job = handlers.ends.enqueue(end, str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    module_cluster.query("UPDATE qworker.job SET token = %s, node = %s WHERE id = %s", OTHER, elsewhere, job.id)
    before = module_cluster.query(ROW, job.id)
    (tmp_path / "go").touch()
    reported = node.await_event("job.stale_write", jobs=[job.id])
    assert (reported["level"], reported["count"]) == ("warning", 1)
    assert reported["write"] == ("complete" if end == "acknowledge" else "outcome")
    assert module_cluster.query(ROW, job.id) == before == [("running", OTHER, elsewhere, 1, 0, 0, None, None)]
    assert module_cluster.value("SELECT count(*) FROM qworker.job_history WHERE id = %s", job.id) == 0
    assert shop.answer.enqueue("next").wait(SOON) == "next"


def test_the_death_of_a_worker_whose_claim_is_over_changes_nothing(
    node: Node, module_cluster: Cluster, elsewhere: int, tmp_path: Path
) -> None:
    job = handlers.ends.enqueue("death", str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    module_cluster.query("UPDATE qworker.job SET token = %s, node = %s WHERE id = %s", OTHER, elsewhere, job.id)
    before = module_cluster.query(ROW, job.id)
    (tmp_path / "go").touch()
    died = node.await_event("child.died", job=job.id)
    node.await_event("worker.jobs_recovered", worker_pid=died["child_pid"])
    assert module_cluster.query(ROW, job.id) == before
    assert shop.answer.enqueue("next").wait(SOON) == "next"


def test_progress_of_a_claim_that_is_over_changes_nothing(
    node: Node, module_cluster: Cluster, elsewhere: int, tmp_path: Path
) -> None:
    job = handlers.reports_late.enqueue(str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    module_cluster.query("UPDATE qworker.job SET token = %s, node = %s WHERE id = %s", OTHER, elsewhere, job.id)
    (tmp_path / "go").touch()
    node.await_event("job.stale_write", jobs=[job.id])
    assert job.refresh().progress is None


def test_every_refused_write_is_counted_also_those_of_workers_that_are_gone(
    node: Node, module_cluster: Cluster, elsewhere: int, tmp_path: Path
) -> None:
    for end in ("acknowledge", "finish"):  # after the second the worker is replaced
        job = handlers.ends.enqueue(end, str(tmp_path / end))
        reached(job, JobState.RUNNING)
        module_cluster.query("UPDATE qworker.job SET token = %s, node = %s WHERE id = %s", OTHER, elsewhere, job.id)
        (tmp_path / end).touch()
        node.await_event("job.stale_write", jobs=[job.id])
    reported = sum(event["count"] for event in node.events("job.stale_write"))
    assert reported >= 2
    until(lambda: sum(shown.state.get("stale_writes", 0) for shown in shop.app.admin.nodes()) == reported, SOON)


def test_a_row_that_somebody_has_locked_holds_up_nothing_but_itself(
    node: Node, module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    job = handlers.ends.enqueue("acknowledge", str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (job.id,))
    (tmp_path / "go").touch()
    module_cluster.await_notes("end", job=job.id)
    shop.noop.enqueue_many((number,) for number in range(3_000))
    heavy = [shop.nap.enqueue(0.06) for _ in range(5)]
    until(lambda: shop.app.queue("default").size() == 0, SOON, what=node.tail)
    for other in heavy:
        reached(other)
    assert job.refresh().state is JobState.RUNNING
    stranger.rollback()
    after = reached(job)
    assert (after.state, after.attempt) == (JobState.COMPLETED, 1)
    assert len(module_cluster.notes("start", job=job.id)) == 1


def test_a_dead_workers_job_that_somebody_has_locked_holds_up_nothing_but_itself(
    node: Node, module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    job = handlers.ends.enqueue("death", str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (job.id,))
    (tmp_path / "go").touch()
    died = node.await_event("child.died", job=job.id)
    delayed = shop.quick.options(delay=0.5).enqueue()
    after = reached(delayed)
    assert after.claimed_at is not None
    assert delayed.run_at is not None
    assert (after.claimed_at - delayed.run_at).total_seconds() < 1
    assert job.refresh().state is JobState.RUNNING
    assert not node.events("worker.jobs_recovered", worker_pid=died["child_pid"])
    stranger.rollback()
    after = reached(job)
    assert (after.state, after.attempt, after.crashes) == (JobState.COMPLETED, 2, 1)
    assert len(module_cluster.notes("start", job=job.id)) == 2
    node.await_event("worker.jobs_recovered", worker_pid=died["child_pid"])


def test_a_finished_job_that_somebody_has_locked_is_not_repeated_when_its_worker_dies(
    node: Node, module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    job = handlers.ends.enqueue("acknowledge", str(tmp_path / "go"))
    reached(job, JobState.RUNNING)
    stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (job.id,))
    (tmp_path / "go").touch()
    (start,) = module_cluster.await_notes("end", job=job.id)
    shop.quick.enqueue().wait(SOON)  # the worker has gone on
    os.kill(int(start["pid"]), signal.SIGKILL)
    node.await_event("child.died", child_pid=int(start["pid"]))
    shop.quick.enqueue().wait(SOON)
    stranger.rollback()
    after = reached(job)
    assert (after.state, after.attempt, after.crashes, after.errors) == (JobState.COMPLETED, 1, 0, ())
    assert len(module_cluster.notes("start", job=job.id)) == 1


def test_a_waiting_job_that_somebody_has_locked_is_passed_over(
    node: Node, module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    # Locked before any worker may claim it; what the stranger holds does not keep others from updating the row.
    job = shop.quick.options(delay=60).enqueue()
    stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR KEY SHARE", (job.id,))
    module_cluster.query(
        "UPDATE qworker.job SET state = 'available', run_at = NULL, seq = nextval('qworker.job_seq') WHERE id = %s",
        job.id,
    )
    behind = [shop.quick.enqueue() for _ in range(10)]
    for other in behind:
        other.wait(SOON)
    assert job.refresh().state is JobState.AVAILABLE
    stranger.rollback()
    reached(job)


def test_an_open_dump_holds_up_nothing(
    node: Node, module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    # What pg_dump does: one snapshot, and a lock on every table until it ends.
    stranger.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    tables = stranger.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'qworker'::regnamespace AND relkind IN ('r', 'p')"
    )
    for (table,) in tables.fetchall():
        stranger.execute(
            psycopg.sql.SQL("LOCK TABLE qworker.{} IN ACCESS SHARE MODE").format(psycopg.sql.Identifier(str(table)))
        )
    jobs = [shop.answer.enqueue(number) for number in range(20)]
    jobs += [shop.flaky.enqueue(1), handlers.stuck.enqueue("sleep"), handlers.dies.enqueue("SIGKILL")]
    for job in jobs:
        assert reached(job).state is JobState.COMPLETED
    assert job.refresh().crashes == 1
