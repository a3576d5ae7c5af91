"""What a transactional task does takes effect exactly once, together with the end of its job, whatever goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworker import Job, JobState
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy
from tests.waiting import until

# A row that names no rule is refused at the commit; the commit of others waits for whoever holds the lock.
EFFECT = """
CREATE TABLE rule (id int PRIMARY KEY);
CREATE TABLE effect (job bigint, attempt int, rule int REFERENCES rule DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER stop AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION stop();
"""
STOPPED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture(scope="module")
def proxy(module_cluster: Cluster) -> Iterator[Proxy]:
    module_cluster.query(EFFECT)
    with Proxy(module_cluster.database.dsn) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def node(module_cluster: Cluster, proxy: Proxy) -> Node:
    return module_cluster.start("--processes", "1", dsn=proxy.dsn).await_ready()


@pytest.fixture
def stranger(module_cluster: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session of somebody else's, in a transaction."""
    with psycopg.connect(module_cluster.database.dsn) as connection:
        yield connection
        connection.rollback()


def effects(cluster: Cluster, job: Job) -> list[int]:
    """Return the attempts of a job that have taken effect."""
    return [attempt for (attempt,) in cluster.query("SELECT attempt FROM effect WHERE job = %s", job.id)]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("way", handlers.EFFECTS)
def test_the_effect_comes_with_the_end_of_the_job_or_not_at_all(module_cluster: Cluster, way: str) -> None:
    job = reached(handlers.takes_effect.enqueue(way), timeout=2 * SOON)
    assert (job.state, job.result) == (JobState.COMPLETED, "done")
    assert effects(module_cluster, job) == [job.attempt] == [1 if way == "returns" else 2]
    assert [error["attempt"] for error in job.errors] == ([] if way == "returns" else [1])


def test_a_handler_that_lost_its_claim_takes_no_effect(node: Node, module_cluster: Cluster, tmp_path: Path) -> None:
    job = handlers.takes_effect_late.enqueue(str(tmp_path / "go"))
    module_cluster.await_notes("start", job=job.id)
    module_cluster.query("UPDATE qworker.job SET token = 42 WHERE id = %s", job.id)
    (tmp_path / "go").touch()
    node.await_event("job.stale_write", jobs=[job.id])
    assert effects(module_cluster, job) == []
    assert job.refresh().state is JobState.RUNNING
    module_cluster.query("DELETE FROM qworker.job WHERE id = %s", job.id)


@pytest.mark.usefixtures("node")
def test_a_job_that_somebody_has_locked_waits_for_its_end(
    module_cluster: Cluster, stranger: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    job = handlers.takes_effect_late.enqueue(str(tmp_path / "go"))
    module_cluster.await_notes("start", job=job.id)
    stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (job.id,))
    (tmp_path / "go").touch()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE '%job%'"
    until(lambda: module_cluster.value(waiting.replace("%", "%%")) == 1, SOON)
    stranger.rollback()
    assert reached(job).attempt == 1
    assert effects(module_cluster, job) == [1]


@pytest.mark.parametrize("fate", ["commits", "is rolled back", "is under way"])
def test_a_commit_whose_answer_is_lost_is_found_out(
    node: Node, module_cluster: Cluster, proxy: Proxy, stranger: psycopg.Connection[tuple[object, ...]], tmp_path: Path,
    fate: str,
) -> None:  # fmt: skip
    stranger.execute("SELECT pg_advisory_xact_lock(1)")
    (tmp_path / "go").touch()
    job = handlers.takes_effect_late.enqueue(str(tmp_path / "go"))
    until(lambda: module_cluster.value(STOPPED) == 1, SOON)
    proxy.refuse()
    node.await_event("job.retried", job=job.id)
    if fate == "commits":
        stranger.rollback()
        until(lambda: effects(module_cluster, job) == [1], SOON)
    elif fate == "is rolled back":
        module_cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
    proxy.flow()
    if fate == "is under way":  # it would not end by itself
        until(lambda: module_cluster.value(STOPPED) == 0, SOON)
    stranger.rollback()
    job = reached(job, timeout=2 * SOON)
    assert job.state is JobState.COMPLETED
    assert effects(module_cluster, job) == [job.attempt] == [1 if fate == "commits" else 2]
    assert node.events("job.stale_write", jobs=[job.id]) == []


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("way", ["returns", "raises"])
def test_a_handler_that_commits_itself_fails_for_good(module_cluster: Cluster, way: str) -> None:
    job = reached(handlers.commits_itself.enqueue(way))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "COMMIT" in job.errors[-1]["message"]
    assert effects(module_cluster, job) == [1]


@pytest.mark.usefixtures("node")
def test_a_job_that_has_taken_another_role_completes(module_cluster: Cluster) -> None:
    job = reached(handlers.takes_effect_as_another.enqueue())
    assert job.state is JobState.COMPLETED
    assert effects(module_cluster, job) == [1]


def test_that_a_transactional_handler_worked_on_another_connection_is_reported_once(node: Node) -> None:
    for job in [handlers.works_elsewhere.enqueue() for _ in range(2)]:
        reached(job)
    (event,) = node.events("job.not_transactional")
    assert (event["task"], "Django" in event["hint"]) == ("works_elsewhere", True)
