"""The doctor beside real nodes, through PgBouncer, and on a standby."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworker.db.connection import connect
from qworker.findings import Finding
from qworker.migrations import migrate
from qworkerd.doctor.catalogue import CHECKS, IDS, select
from qworkerd.doctor.examination import Examination, examine
from qworkerd.embedded import EmbeddedPostgres
from tests.chaos.standby import Standby
from tests.database import Database
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOONER, Cluster
from tests.lifecycle.pgbouncer import PROGRAM, PgBouncer
from tests.qworkerd.test_doctor import job, node
from tests.waiting import until


def look(dsn: str, *only: str, direct: bool | None = None) -> Examination:
    with connect(dsn, "doctor", statement_timeout=2.0, lock_timeout=0.2) as conn:
        result = examine(conn, "qworker", select(only), direct=direct)
    # Other tests have requested checkpoints of the server that all tests share.
    result.findings = [finding for finding in result.findings if finding.check != "checkpoints"]
    return result


def found(dsn: str, *only: str) -> set[str]:
    return {finding.check for finding in look(dsn, *only).findings}


def test_what_needs_a_node_is_gone_when_the_remedy_has_started_one(cluster: Cluster) -> None:
    conn = cluster.database.connect()
    job(conn, queue="mail", task="quick")
    job(conn, "scheduled", queue="mail", task="quick", run_at="2020-01-01")
    job(conn, "running", queue="mail", task="quick", token=1, node=99, claimed_at="2020-01-01")
    dead = node(conn, "mail", silent=600)
    checks = ("unserved-queue", "not-promoted", "orphaned-jobs", "silent-node")
    result = look(cluster.database.dsn, *checks)
    assert {finding.check for finding in result.findings} == set(checks)
    for finding in result.findings:
        (remedy,) = finding.remedy
        assert remedy in ("qworker", "qworker --queues mail")
    conn.execute("UPDATE qworker.node SET lease_seconds = 5 WHERE id = %s", [dead])
    cluster.start("--queues", "mail", "--processes", "1", *SOONER)
    until(lambda: not found(cluster.database.dsn, *checks), 30, what=lambda: str(look(cluster.database.dsn, *checks)))


def test_the_oldest_node_reports_what_it_finds_and_another_takes_over(cluster: Cluster) -> None:
    environment = {"QWORKER_APP": "tests.lifecycle.examined:app"}
    first = cluster.start("--processes", "1", *SOONER, **environment).await_ready()
    second = cluster.start("--processes", "1", *SOONER, **environment).await_ready()
    conn = cluster.database.connect()
    job(conn, queue="mail")
    event = first.await_event("doctor.finding", check="unserved-queue")
    assert (event["level"], event["about"], event["remedy"]) == ("error", "queue mail", "qworker --queues mail")
    cluster.await_notes("found", check="unserved-queue", resolved="False")
    first.await_event("report.error", where="on_finding")
    assert second.events("doctor.finding") == []
    assert first.stop() == 0
    second.await_event("doctor.finding", check="unserved-queue")
    conn.execute("DELETE FROM qworker.job")
    second.await_event("doctor.resolved", check="unserved-queue")
    assert [event["check"] for event in second.events("doctor.finding")] == ["unserved-queue"]


def test_nodes_under_load_are_healthy(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.start("--processes", "2", *SOONER).await_ready()
    for _ in range(5):
        quick.enqueue_many([()] * 500)
        result = look(cluster.database.dsn)
        assert result.findings == []
        assert [skipped.check for skipped in result.skipped] == []


@pytest.fixture
def pgbouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    with PgBouncer(cluster.database.dsn) as pgbouncer:
        yield pgbouncer


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
def test_all_checks_are_made_through_pgbouncer(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    conn = cluster.database.connect()
    job(conn, queue="mail")
    result = look(pgbouncer.dsn, direct=False)
    assert result.skipped == []
    assert {finding.check for finding in result.findings} == {"unserved-queue", "pooler"}
    assert found(pgbouncer.dsn) == {"unserved-queue"}, "the settings are unknown"
    with psycopg.connect(pgbouncer.dsn) as other:
        assert other.execute("SHOW statement_timeout").fetchone() == ("0",), "nothing is left in the shared session"
        assert other.execute("SHOW transaction_read_only").fetchone() == ("off",)


def test_a_standby_that_keeps_dead_rows_on_the_primary_is_found(tmp_path: Path) -> None:
    with EmbeddedPostgres() as primary:
        with psycopg.connect(primary.dsn) as conn:
            migrate(conn)
        with Standby(primary, primary.dsn) as standby, connect(primary.dsn, "doctor") as conn:
            with psycopg.connect(standby.dsn, autocommit=True) as there:
                there.execute("ALTER SYSTEM SET hot_standby_feedback = on")
                there.execute("SELECT pg_reload_conf()")

            def feedback() -> list[Finding]:
                limits = {"feedback_transactions": 0.0}
                return examine(conn, "qworker", select(["standby-feedback"]), limits=limits).findings

            finding = until(feedback)[0]
            assert "a query on standby 'standby' has held back" in finding.summary
            with psycopg.connect(standby.dsn, autocommit=True) as there:
                for line in finding.remedy:
                    there.execute(line.encode())
            until(lambda: not feedback())


def test_a_standby_is_found_and_the_other_checks_are_made(tmp_path: Path) -> None:
    with EmbeddedPostgres() as primary:
        with psycopg.connect(primary.dsn) as conn:
            migrate(conn)
        with psycopg.connect(primary.dsn) as conn:
            job(conn, queue="mail")
        with Standby(primary, primary.dsn) as standby:
            database = Database(standby.dsn)
            until(lambda: "unserved-queue" in found(database.dsn))
            result = look(database.dsn)
            assert result.findings[0].check == "read-only"
            assert "the server is a standby" in result.findings[0].summary
            assert {finding.check for finding in result.findings} == {"read-only", "unserved-queue"}
            assert result.skipped == []
            before_15 = {skipped.check for skipped in result.left_out} == {"collation"}
            assert result.checks == len(IDS) - len({check.id for check in CHECKS if check.deep}) - before_15
