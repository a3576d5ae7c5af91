"""Through PgBouncer in transaction mode everything works: by looking, and without leaving settings behind."""

from collections.abc import Iterator
from math import inf
from time import monotonic

import psycopg
import pytest

from qworker import App, JobState
from qworker.db.connection import connect
from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import PINNED
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.shared.slots import Role
from qworkerd.worker.job_connection import JobConnection
from tests.lifecycle import handlers
from tests.lifecycle.application import flaky, quick, suicide
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.node import Node
from tests.lifecycle.pgbouncer import PROGRAM, PgBouncer
from tests.waiting import until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture(scope="module")
def pgbouncer(module_cluster: Cluster) -> Iterator[PgBouncer]:
    with PgBouncer(module_cluster.database.dsn) as pgbouncer:
        yield pgbouncer


@pytest.fixture(scope="module")
def node(module_cluster: Cluster, pgbouncer: PgBouncer) -> Node:
    return module_cluster.start("--processes", "3", "--poll-interval", "0.1", dsn=pgbouncer.dsn).await_ready()


@pytest.fixture
def app(pgbouncer: PgBouncer) -> Iterator[App]:
    app = App(pgbouncer.dsn)
    yield app
    app.close()


def test_that_there_is_one_is_found_out(pgbouncer: PgBouncer, module_cluster: Cluster) -> None:
    with connect(pgbouncer.dsn, "test") as through, connect(module_cluster.database.dsn, "test") as past:
        assert (is_pooled(through), is_pooled(past)) == (True, False)


def test_a_statement_brings_its_settings_and_leaves_none_behind(pgbouncer: PgBouncer) -> None:
    ask = (
        "SELECT current_setting('enable_seqscan'), current_setting('statement_timeout'),"
        " current_setting('search_path'), %(text)s"
    )
    with connect(pgbouncer.dsn, "test", statement_timeout=7) as ours, psycopg.connect(pgbouncer.dsn) as theirs:
        for _ in range(10):
            assert ours.execute(ask, {"text": "100 % %s '"}).fetchall() == [("off", "7s", PINNED, "100 % %s '")]
            with ours.transaction():
                assert ours.execute(ask, {"text": ""}).fetchall() == [("off", "7s", PINNED, "")]
                ours.execute("CREATE TEMPORARY TABLE mark ON COMMIT DROP AS SELECT 1")
                assert ours.execute("SELECT count(*) FROM mark").fetchall() == [(1,)]
            assert theirs.execute(ask, {"text": ""}, prepare=False).fetchall() == [("on", "0", '"$user", public', "")]
            theirs.rollback()


def test_a_statement_that_takes_too_long_is_ended(pgbouncer: PgBouncer) -> None:
    with connect(pgbouncer.dsn, "test", statement_timeout=0.1) as conn, pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("SELECT pg_sleep(60)")


def test_jobs_are_enqueued_in_every_way(app: App, node: Node) -> None:
    task = app.task(name="answer")(handlers.app.get_task("answer").handler)
    with psycopg.connect(str(app.dsn)) as conn:
        conn.prepare_threshold = None
        jobs = [task.enqueue(1), task.using(conn).enqueue(2), task.options(delay=0.3, unique="x").enqueue(3)]
        conn.commit()
    ids = task.enqueue_many([(4,), (5,)], ids=True)
    assert [job.wait(SOON) for job in jobs] == [1, 2, 3]
    assert [app.job(id_).wait(SOON) for id_ in ids] == [4, 5]
    assert node.events("scheduler.notifications_unavailable")


@pytest.mark.usefixtures("node")
def test_every_outcome_is_written() -> None:
    done = reached(flaky.enqueue(1))
    assert (done.state, done.attempt) == (JobState.COMPLETED, 2)
    crashed = reached(suicide.enqueue())
    assert (crashed.state, crashed.attempt, crashed.crashes) == (JobState.COMPLETED, 2, 1)
    stuck = reached(handlers.stuck.enqueue("query"))
    assert (stuck.state, stuck.attempt) == (JobState.COMPLETED, 2)
    for _ in range(3):  # a statement that the driver prepared would be met by a session that does not know it
        assert [reached(handlers.takes_many.enqueue()).state for _ in range(3)] == [JobState.COMPLETED] * 3


def test_a_backlog_is_worked_off_by_workers_that_share_four_sessions(node: Node, module_cluster: Cluster) -> None:
    count = quick.enqueue_many([()] * 500)
    assert count == 500
    until(lambda: module_cluster.value("SELECT count(*) FROM qworker.job") == 0, 30, what=node.tail)


def test_a_way_past_it_for_the_scheduler_brings_notifications(cluster: Cluster) -> None:
    with PgBouncer(cluster.database.dsn) as pgbouncer:
        node = cluster.start(
            "--processes", "1", dsn=pgbouncer.dsn, QWORKER_DIRECT_DSN=cluster.database.dsn
        ).await_ready()
        until(lambda: cluster.value("SELECT count(*) FROM qworker.idle_node") == 1, what=node.tail)
        waits = []
        for _ in range(5):
            enqueued_at = monotonic()
            job = quick.enqueue()
            (note,) = cluster.await_notes("start", job=job.id)
            waits.append(float(note["at"]) - enqueued_at)
            until(lambda: cluster.value("SELECT count(*) FROM qworker.idle_node") == 1)
        assert sorted(waits)[1] < 0.1, "by looks alone it would be half a second"
        assert node.events("scheduler.notifications_unavailable") == []
        assert node.stop() == 0


SETTING = "SELECT nullif(current_setting('app.tenant', true), ''), current_user::text, pg_try_advisory_lock(7)"


@pytest.mark.parametrize("begin", ["open", "open_transaction"])
def test_what_a_handler_sets_stays_in_no_session_of_the_pooler(pgbouncer: PgBouncer, begin: str) -> None:
    node = make_node(App(), Settings(dsn=pgbouncer.dsn, processes=1))
    node.table.slots[0].assign(Role.WORKER, 1, inf, 0.0)
    lending = JobConnection(node, node.table.slots[0])
    with psycopg.connect(pgbouncer.dsn) as other:
        before = other.execute(SETTING, prepare=False).fetchone()
        other.execute("SELECT pg_advisory_unlock_all()", prepare=False)
        other.commit()
        for _ in range(8):
            connection = getattr(lending, begin)()
            connection.execute("SELECT set_config('app.tenant', 'acme', false), pg_advisory_lock(7)")
            connection.execute("SET ROLE pg_monitor")
            assert lending.finish(connection, commit=True) is None
        held = []
        for _ in range(4):  # each has another of the pooler's four sessions
            held.append(session := psycopg.connect(pgbouncer.dsn))
            assert session.execute(SETTING, prepare=False).fetchone() == before
            session.execute("SELECT pg_advisory_unlock_all()", prepare=False)
        for session in held:
            session.close()
    lending.close()
