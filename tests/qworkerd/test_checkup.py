"""The scheduler of one node makes the cheap checks, reports what changes, and never pays for it with its lease."""

import json
import secrets
from collections.abc import Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from qworker.db.connection import connect
from qworker.findings import Finding
from qworker.rights import Kind, grant
from qworkerd.doctor.catalogue import CHECKS
from qworkerd.scheduler.checkup import Checkup
from qworkerd.scheduler.maintenance import MORE
from tests.database import Database
from tests.qworkerd.test_doctor import job
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture
from tests.waiting import until

harness = harness_fixture
CHEAP = [check for check in CHECKS if check.cheap]


@pytest.fixture
def events(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the checkup logs."""
    with capture_logs() as found:
        import structlog

        monkeypatch.setattr(harness.scheduler.routine.checkup, "_log", structlog.get_logger())
        yield found


def run(harness: Harness, *others: int) -> object:
    database = harness.scheduler.connection.get()
    assert database is not None
    return harness.scheduler.routine.checkup.run(database, others)


def found(events: list[Any], name: str = "doctor.finding") -> list[str]:
    return [event["check"] for event in events if event["event"] == name]


def test_a_finding_is_logged_once_and_once_when_it_is_gone(
    harness: Harness, events: list[Any], database: Database
) -> None:
    run(harness)
    assert events == []
    conn = database.connect()
    job(conn, queue="mail")
    for _ in range(3):
        run(harness)
    (event,) = events
    assert event["log_level"] == "error"
    assert event["about"] == "queue mail"
    assert event["remedy"] == "qworker --queues mail"
    assert "no live node serves it" in event["finding"]
    conn.execute("DELETE FROM qworker.job")
    for _ in range(3):
        run(harness)
    assert [event["event"] for event in events] == ["doctor.finding", "doctor.resolved"]


def test_only_the_node_that_was_registered_first_makes_the_checks(
    harness: Harness, events: list[Any], database: Database
) -> None:
    own = harness.node.table.header.node
    job(database.connect(), queue="mail")
    run(harness, own - 1, own + 1)
    assert events == []
    run(harness, own + 1)
    assert found(events) == ["unserved-queue"]
    run(harness, own - 1)
    run(harness, own + 1)
    assert found(events) == ["unserved-queue"] * 2, "the other node may have reported it as resolved meanwhile"


def test_hooks_are_called_in_another_thread_and_their_errors_do_no_harm(harness: Harness, database: Database) -> None:
    calls: list[tuple[str, bool]] = []

    @harness.node.app.on_finding
    def broken(_finding: Finding, resolved: bool) -> None:
        raise SystemExit("no luck")

    @harness.node.app.on_finding
    def note(finding: Finding, resolved: bool) -> None:
        calls.append((finding.check, resolved))

    conn = database.connect()
    job(conn, queue="mail")
    run(harness)
    until(lambda: calls == [("unserved-queue", False)])
    conn.execute("DELETE FROM qworker.job")
    run(harness)
    until(lambda: calls[1:] == [("unserved-queue", True)])
    harness.scheduler.reporter.close(5)


def test_a_round_is_three_statements(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run(harness)
    database = harness.scheduler.connection.get()
    assert database is not None
    sent: list[object] = []
    kind = database.cursor_factory

    class Counting(kind):  # type: ignore[misc, valid-type]
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            sent.append(query)
            return super().execute(query, *args, **options)

    database.cursor_factory = Counting
    run(harness)
    database.cursor_factory = kind
    assert len(sent) == 3


def test_the_limit_of_the_session_is_restored(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    database = harness.scheduler.connection.get()
    assert database is not None
    run(harness)
    assert database.execute("SHOW statement_timeout").fetchone() == ("5s",)
    monkeypatch.setattr("qworkerd.scheduler.checkup.TIMEOUT", 0.001)
    run(harness)
    assert database.execute("SHOW statement_timeout").fetchone() == ("5s",)


def test_a_check_that_fails_is_left_out_and_the_others_are_made(
    harness: Harness, events: list[Any], database: Database
) -> None:
    conn = database.connect()
    job(conn, queue="mail")
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.cron IN ACCESS EXCLUSIVE MODE")
        rounds = 1
        while run(harness) is MORE:
            rounds += 1
            assert rounds < 100
        assert found(events, "doctor.check_failed") == ["schedule-overdue"]
        assert found(events) == ["unserved-queue"]
        events.clear()
        conn.execute("DELETE FROM qworker.job")
        assert run(harness) is None, "one statement again, without the check that has failed"
    assert found(events, "doctor.resolved") == ["unserved-queue"]


def test_a_held_lock_does_not_keep_the_scheduler_from_its_lease(harness: Harness, database: Database) -> None:
    run(harness)
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE qworker.cron IN ACCESS EXCLUSIVE MODE")
        begun = monotonic()
        run(harness)
        assert monotonic() - begun < 2.0, "the lock timeout of the scheduler is 0.3 s"


def test_a_lost_connection_is_raised(harness: Harness, database: Database) -> None:
    run(harness)
    conn = harness.scheduler.connection.get()
    assert conn is not None
    database.connect().execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        until(lambda: run(harness) == "never")


def test_all_rows_are_the_same_alone_and_combined(database: Database, harness: Harness) -> None:
    conn = database.connect()
    job(conn, queue="mail")
    job(conn, "scheduled", run_at="2020-01-01", task="old", unknown_task_count=1)
    subject = harness.scheduler.routine.checkup._subject_of(harness.conn)
    checks = [check for check in CHEAP if check.since <= subject.server.version <= check.until]
    combined = harness.scheduler.routine.checkup._all(harness.conn, subject, checks)
    alone = [
        finding
        for check in checks
        for row in harness.scheduler.routine.checkup._doctor.rows(
            harness.conn, check.area, check.statement, check.parameters("qworker")
        )
        if (finding := check.finding(row, subject)) is not None
    ]
    assert {finding.key for finding in combined} == {finding.key for finding in alone}
    assert len(combined) == len(alone)
    assert {finding.check for finding in alone} >= {"unserved-queue", "not-promoted", "unknown-task"}
    json.dumps([dict(finding.evidence) for finding in combined])


def test_the_role_of_a_node_may_make_the_checks(database: Database, harness: Harness) -> None:
    role = f"worker_{secrets.token_hex(4)}"
    conn = database.connect()
    conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    try:
        grant(conn, role, [Kind.WORKER])
        job(conn, queue="mail")
        with connect(make_conninfo(database.dsn, user=role, password="pw"), "scheduler") as own:
            subject = harness.scheduler.routine.checkup._subject_of(own)
            checks = [check for check in CHEAP if check.since <= subject.server.version <= check.until]
            findings = harness.scheduler.routine.checkup._all(own, subject, checks)
        assert [finding.check for finding in findings] == ["unserved-queue"]
    finally:
        conn.execute(f"DROP OWNED BY {role}".encode())
        conn.execute(f"DROP ROLE {role}".encode())


def test_a_checkup_begins_only_when_the_node_is_registered(harness: Harness) -> None:
    harness.node.table.header.node = 0
    assert isinstance(harness.scheduler.routine.checkup, Checkup)
    assert run(harness) is None


def test_values_that_cannot_be_explained_hide_no_other_finding(
    harness: Harness, events: list[Any], database: Database
) -> None:
    """A time that was edited by hand made the whole checkup fail, once a minute and for ever."""
    conn = database.connect()
    job(conn, queue="mail")
    conn.execute("UPDATE qworker.job SET enqueued_at = '-infinity'")
    for name, tick in (("far", "294276-01-01"), ("late", "2020-01-01")):
        conn.execute(
            "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, last_tick)"
            " VALUES (%s, 't', '* * * * *', 'UTC', 1, %s)",
            [name, tick],
        )
    assert [run(harness) for _ in range(3)] == [None] * 3
    assert sorted(set(found(events))) == ["schedule-overdue", "unserved-queue"]
    assert "forever" in next(event["finding"] for event in events if event.get("check") == "unserved-queue")
    (failed,) = [event for event in events if event["event"] == "doctor.check_failed"]
    assert failed["check"] == "schedule-overdue"
    assert "'far'" in failed["error"]
