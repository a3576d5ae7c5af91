"""The database goes away and comes back: nodes wait for it, and lose nothing and repeat nothing."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from qworker import Job, JobState
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import MORTAL, Database
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.handlers import held
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy
from tests.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that may be stopped and crashed."""
    with EmbeddedPostgres(MORTAL) as server:
        with psycopg.connect(server.dsn) as conn:
            migrate(conn)
        yield server


@pytest.fixture
def own(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Cluster]:
    """Nodes on that server; it runs when the test begins, and is clean."""
    server.start()
    database = Database(server.dsn)
    database.empty()
    with Cluster(database, tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module", autouse=True)
def leaving(module_cluster: Cluster) -> Iterator[tuple[Node, Job]]:
    """A node that has to stop while its database cannot be reached, and the job it was running. It begins first and is
    looked at last: it takes ten seconds.
    """  # fmt: skip
    go = module_cluster.folder / "go"
    with Proxy(module_cluster.database.dsn) as proxy:
        node = module_cluster.start("--processes", "1", dsn=proxy.dsn).await_ready()
        job = held.enqueue(str(go))
        module_cluster.await_notes("start", job=job.id)
        proxy.refuse()
        go.touch()
        module_cluster.await_notes("end", job=job.id)
        node.signal(signal.SIGTERM)
        yield node, job


def test_a_node_that_starts_without_its_database_waits_for_it(own: Cluster, server: EmbeddedPostgres) -> None:
    job = quick.enqueue()
    server.stop()
    node = own.start("--processes", "1")
    node.await_event("database.disconnected", role="scheduler")
    node.await_event("database.disconnected", role="worker")
    server.start()
    node.await_ready()
    assert reached(job).state is JobState.COMPLETED
    assert node.events("child.died") == []
    assert node.stop() == 0


def test_a_node_that_waits_for_its_database_can_be_stopped(own: Cluster, server: EmbeddedPostgres) -> None:
    server.stop()
    node = own.start("--processes", "1")
    node.await_event("database.disconnected", role="scheduler")
    node.await_event("database.disconnected", role="worker")
    node.signal(signal.SIGTERM)
    assert node.wait(5) == 0
    assert node.members() == []


def test_a_database_without_the_schema_ends_a_node_that_has_waited_for_it(
    own: Cluster, server: EmbeddedPostgres
) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("CREATE DATABASE bare")
    server.stop()
    node = own.start("--processes", "1", dsn=server.dsn.rpartition("/")[0] + "/bare")
    node.await_event("database.disconnected", role="scheduler")
    server.start()
    assert node.wait() == 78
    assert "qworker db migrate" in node.log.read_text()
    assert node.members() == []


@pytest.mark.parametrize("end", [EmbeddedPostgres.stop, EmbeddedPostgres.kill], ids=["restart", "crash"])
def test_a_running_job_does_not_notice_a_restart(
    own: Cluster, server: EmbeddedPostgres, tmp_path: Path, end: Callable[[EmbeddedPostgres], None]
) -> None:
    node = own.start("--processes", "2").await_ready()
    job = held.enqueue(str(tmp_path / "go"))
    own.await_notes("start", job=job.id)
    end(server)
    node.await_event("database.disconnected", role="scheduler")
    server.start()
    node.await_event("database.reconnected", role="scheduler")
    later = quick.enqueue()
    assert reached(later).state is JobState.COMPLETED
    (tmp_path / "go").touch()
    done = reached(job)
    assert (done.state, done.attempt, done.crashes, done.node_losses) == (JobState.COMPLETED, 1, 0, 0)
    assert len(own.notes("start", job=job.id)) == 1
    assert node.events("child.died") == []
    assert node.stop() == 0


def test_a_job_that_ends_while_the_database_is_away_is_settled_when_it_is_back(
    own: Cluster, server: EmbeddedPostgres, tmp_path: Path
) -> None:
    node = own.start("--processes", "1").await_ready()
    job = held.enqueue(str(tmp_path / "go"))
    own.await_notes("start", job=job.id)
    server.kill()
    (tmp_path / "go").touch()
    own.await_notes("end", job=job.id)
    node.await_event("database.disconnected", role="worker")
    server.start()
    assert reached(job).state is JobState.COMPLETED
    assert len(own.notes("start", job=job.id)) == 1
    assert node.stop() == 0


def test_sessions_that_an_administrator_ends_are_opened_again(own: Cluster) -> None:
    node = own.start("--processes", "2").await_ready()
    ours = "FROM pg_stat_activity WHERE application_name SIMILAR TO 'qworker (scheduler|worker) %'"
    until(lambda: own.value(f"SELECT count(*) {ours}") >= 3)
    assert own.value(f"SELECT bool_and(pg_terminate_backend(pid)) {ours}")
    assert reached(quick.enqueue()).state is JobState.COMPLETED
    assert node.events("child.died") == []
    assert node.stop() == 0


def test_a_proxy_that_has_lost_its_server_is_left_and_the_running_job_is_not_charged_for_it(
    own: Cluster, tmp_path: Path
) -> None:
    """It goes on taking what is sent and answers nothing: neither keepalives nor tcp_user_timeout notice."""
    with Proxy(own.database.dsn) as proxy:
        node = own.start("--processes", "1", "--stall-timeout", "5", dsn=proxy.dsn).await_ready()
        reached(quick.enqueue())  # every process has its connection
        job = held.enqueue(str(tmp_path / "go"))
        own.await_notes("start", job=job.id)
        proxy.forget()
        later = quick.enqueue()
        (tmp_path / "go").touch()
        own.await_notes("end", job=job.id)
        done = [reached(job, timeout=15), reached(later, timeout=15)]
        assert [(job.state, job.attempt, job.crashes, job.node_losses) for job in done] == [
            (JobState.COMPLETED, 1, 0, 0)
        ] * 2
        assert len(own.notes("start")) == 3
        assert "no answer for 3.75 s" in node.await_event("claim.error")["error"]
        assert "no answer for 3.75 s" in node.await_event("acknowledge.error")["error"]
        assert node.events("child.died") == []
        assert node.stop() == 0


ALL, THEIRS = "FROM pg_stat_activity WHERE backend_type = 'client backend'", "application_name LIKE 'qworker%'"


def test_a_server_without_a_free_connection_is_waited_for(
    own: Cluster, server: EmbeddedPostgres, tmp_path: Path
) -> None:
    node = own.start("--processes", "2").await_ready()
    job = held.enqueue(str(tmp_path / "go"))
    own.await_notes("start", job=job.id)
    own.query("SELECT 1")  # who looks on has a connection
    with ExitStack() as crowd:

        def full() -> bool:
            own.query(f"SELECT pg_terminate_backend(pid) {ALL} AND {THEIRS}")
            with suppress(psycopg.OperationalError):
                while True:
                    crowd.enter_context(psycopg.connect(server.dsn))
            return own.query(f"SELECT count(*) = current_setting('max_connections')::int, bool_or({THEIRS}) {ALL}") == [
                (True, False)
            ]

        until(full)
        (tmp_path / "go").touch()
        own.await_notes("end", job=job.id)
        for role in ("scheduler", "worker"):
            node.await_event("database.disconnected", role=role)
        assert "too many clients" in node.await_event("database.disconnected")["error"]
        starting = own.start("--processes", "1")
        starting.await_event("database.disconnected")
    done = reached(job)
    assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 1, 0)
    starting.await_ready()
    for one in (node, starting):
        assert one.events("child.died") == []
        assert one.stop() == 0


def test_a_drain_without_the_database_ends_in_time_and_leaves_what_it_cannot_settle(leaving: tuple[Node, Job]) -> None:
    node, job = leaving
    assert node.wait() == 0
    assert node.members() == []
    node.await_event("worker.unacknowledged")
    # Others run it again after the lease; that it was done nobody could be told.
    assert job.refresh().state is JobState.RUNNING
