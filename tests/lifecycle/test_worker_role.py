"""A node that runs as a role with the privileges of a worker lacks nothing for any of its duties."""

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from qworker import JobState
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests import roles
from tests.database import Database
from tests.lifecycle.application import answer, flaky, hooked, nap, quick, suicide
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.handlers import app, takes_effect
from tests.lifecycle.node import Node
from tests.waiting import until

LEASE = 5
#: A job of each duty of retention: too old a failure, one that has expired, a day of the history that is over.
_OLD = """
INSERT INTO qworker.job (task, state, failed_at) VALUES ('old', 'failed', now() - interval '90 days');
INSERT INTO qworker.job (task, queue, expires_at) VALUES ('expired', 'elsewhere', now());
INSERT INTO qworker.unique_key (task, key, job_id, expires_at) VALUES ('old', 'k', 0, now() - interval '1 day');
INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes, node_losses,
                                 is_hook, queue, task, args)
SELECT 1000000, t, t, 'completed', 1, qworker.history_day(t), 5, 0, 0, false, 'default', 'ancient', '{}'
  FROM (SELECT now() - interval '20 days' AS t) AS moment;
INSERT INTO qworker.cron (name, task, expression, timezone, created_at, declared_by, declared_at)
VALUES ('gone', 'gone', '* * * * *', 'UTC', now() - interval '90 days', 0, now() - interval '90 days');
"""


@pytest.fixture(scope="module")
def cluster(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Starts nodes as the role; the test itself, and so what it enqueues, is the owner of the schema."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        roles.create(conn)
        conn.execute(_OLD)
        conn.execute("CREATE TABLE effect (job bigint, attempt int); GRANT INSERT ON effect TO worker")
    with Cluster(database, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        roles.drop(conn)
    database.drop(postgres_server)


def start(cluster: Cluster, *options: str) -> Node:
    return cluster.start(
        "--processes", "2", "--lease-timeout", str(LEASE), *options, dsn=roles.login(cluster.database.dsn, "worker"),
        QWORKER_APP="tests.lifecycle.handlers:app", QWORKER_TEST_CRON="* * * * * *",
    )  # fmt: skip


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[Node]:
    """A node that has to do everything; at the end it has met no error of the database."""
    node = start(cluster).await_ready()
    yield node
    assert node.stop() == 0
    errors = ("maintenance.error", "scheduler.error", "cron.error", "acknowledge.error", "claim.error")
    assert [event for name in (*errors, "worker.recovery_failed") for event in node.events(name)] == []
    assert "permission denied" not in node.log.read_text()


def test_jobs_end_as_they_should(cluster: Cluster, node: Node) -> None:
    assert answer.enqueue(7).wait(SOON) == 7
    assert reached(flaky.enqueue(2)).state == JobState.COMPLETED
    assert reached(suicide.options(unique="k").enqueue()).state == JobState.COMPLETED
    assert reached(takes_effect.enqueue("raises")).state == JobState.COMPLETED
    assert cluster.value("SELECT count(*) FROM effect") == 1
    assert cluster.value("SELECT count(*) FROM qworker.unique_key WHERE key = 'k'") == 0


def test_a_job_that_fails_calls_its_hook(cluster: Cluster, node: Node) -> None:
    job = hooked.enqueue()
    reached(job, JobState.FAILED)
    cluster.await_notes("hook", job=job.id)


def test_jobs_are_cancelled_while_they_run_and_while_they_wait(cluster: Cluster, node: Node) -> None:
    running, waiting = nap.enqueue(60), quick.options(delay=3600).enqueue()
    cluster.await_notes("start", job=running.id)
    app.admin.cancel(running.id, waiting.id)
    assert {reached(running).state, reached(waiting).state} == {JobState.CANCELLED}


def test_a_node_that_sleeps_is_woken(cluster: Cluster, node: Node) -> None:
    until(lambda: cluster.value("SELECT count(*) FROM qworker.idle_node"))
    assert reached(quick.options(delay=0.5).enqueue()).state == JobState.COMPLETED


def test_schedules_tick(cluster: Cluster, node: Node) -> None:
    cluster.await_notes("tick", 2)


def test_what_is_old_is_put_away(cluster: Cluster, node: Node) -> None:
    def left() -> list[tuple[str, str]]:
        return cluster.query(
            "SELECT task, state FROM qworker.jobs WHERE task IN ('old', 'expired', 'ancient')"
            " UNION ALL SELECT task, key FROM qworker.unique_key WHERE task = 'old'"
            " UNION ALL SELECT name, task FROM qworker.cron WHERE name = 'gone' ORDER BY 1"
        )

    until(lambda: left() == [("expired", "cancelled"), ("old", "discarded")], what=lambda: str(left()))


def test_the_jobs_of_a_node_that_is_lost_are_rescued(cluster: Cluster, node: Node) -> None:
    lost = start(cluster, "--queues", "other").await_ready()
    job = nap.options(queue="other").enqueue(60)
    cluster.await_notes("start", job=job.id)
    lost.destroy()
    node.await_event("jobs.rescued", timeout=LEASE + 10, jobs=1)
    assert reached(job, JobState.AVAILABLE).node_losses == 1
