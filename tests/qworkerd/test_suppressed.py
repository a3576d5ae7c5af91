"""What a user's trigger suppresses without an error is found by the number of rows, and said like what one refuses."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qworker import App
from qworker.claims import Claims, WriteSuppressed
from qworker.db.connection import connect
from qworker.recovery import Recovery
from qworker.registry import Registry
from qworker.schedules import StoredSchedules
from qworkerd.config.settings import Settings
from qworkerd.outcomes.reports import Reporter
from qworkerd.run import make_node
from qworkerd.scheduler.rescue import Rescue
from qworkerd.scheduler.schedules import RETRY_AFTER_ERROR, Schedules
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.tally import Tally
from tests.database import Database
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture
from tests.suppressing import suppressing

harness = harness_fixture

LogRecorder = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def conn(database: Database) -> Iterator[Any]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogRecorder:
    """The events of the parts of a scheduler that are made after this."""
    logged: LogRecorder = []

    def say(event: str, **facts: Any) -> None:
        logged.append((event, facts))

    logger = SimpleNamespace(info=say, warning=say, error=say, debug=say)
    monkeypatch.setattr("qworkerd.log.get", lambda: logger)
    return logged


def scheduled(conn: Any, database: Database, **options: Any) -> Schedules:
    """Return the schedules of a node, one of which is due every minute."""
    app = App(database.dsn)
    app.cron("* * * * *")(app.task(name="report", **options)(lambda: None))
    node = make_node(app, Settings(dsn=database.dsn, processes=1))
    node.table.header.node = Registry().register(
        conn, name="here", version="1", queues=["default"], worker_count=1, lease_seconds=30.0
    )
    return Schedules(node, StoredSchedules())


def a_day_later(conn: Any) -> None:
    conn.execute(
        "UPDATE qworker.cron SET created_at = created_at - interval '1 day', last_tick = last_tick - interval '1 day'"
    )


def now(conn: Any) -> float:
    return float(conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()[0])


@pytest.mark.parametrize("options", [{}, {"unique": True}, {"unique_for": 3600}], ids=str)
@pytest.mark.parametrize(
    ("event", "table", "row"), [("INSERT", "job", "NULL"), ("UPDATE", "cron", "NULL"), ("UPDATE", "cron", "OLD")]
)
def test_a_suppressed_tick_is_an_error_and_comes_once_the_trigger_is_gone(
    conn: Any, database: Database, logged: LogRecorder, event: str, table: str, row: str, options: dict[str, Any]
) -> None:
    schedules = scheduled(conn, database, **options)
    schedules.declare(conn)
    a_day_later(conn)
    with suppressing(database.connect(), event, table=table, row=row):
        assert schedules.enqueue(conn) == 0
        ((name, facts),) = logged
        assert (name, facts["schedule"]) == ("cron.error", "report")
        assert "suppresses" in facts["error"]
        assert schedules.due_at <= now(conn) + RETRY_AFTER_ERROR
        assert conn.execute("SELECT count(*) FROM qworker.job").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM qworker.unique_key").fetchone() == (0,)
    assert schedules.enqueue(conn) == 1


def test_a_tick_of_another_node_is_not_suppressed(conn: Any, database: Database, logged: LogRecorder) -> None:
    first, second = scheduled(conn, database), scheduled(conn, database)
    first.declare(conn)
    second.declare(conn)
    a_day_later(conn)
    (at,) = conn.execute("SELECT extract(epoch FROM date_trunc('minute', clock_timestamp()))::float8").fetchone()
    assert first._tick(conn, "report", at)
    assert not second._tick(conn, "report", at)
    assert [event for event, _ in logged] == ["cron.enqueued"]


def test_a_suppressed_declaration_is_an_error(conn: Any, database: Database, logged: LogRecorder) -> None:
    schedules = scheduled(conn, database)
    with suppressing(database.connect(), "INSERT", table="cron"):
        schedules.declare(conn)
    assert [(event, facts["schedule"]) for event, facts in logged] == [("cron.error", "report")]


def test_a_suppressed_change_of_a_declaration_is_an_error(conn: Any, database: Database, logged: LogRecorder) -> None:
    schedules = scheduled(conn, database)
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by) VALUES ('report', 'x', 'x', 'x', 0)"
    )
    with suppressing(database.connect(), "UPDATE", table="cron"):
        schedules.declare(conn)
    assert [event for event, _ in logged] == ["cron.error"]


def test_a_declaration_that_a_newer_node_has_replaced_is_not_suppressed(
    conn: Any, database: Database, logged: LogRecorder
) -> None:
    old, new = scheduled(conn, database), scheduled(conn, database)
    new.declare(conn)
    old.declare(conn)
    assert logged == []


def test_a_job_whose_failure_hook_is_suppressed_has_not_failed_yet(conn: Any, database: Database) -> None:
    claims = Claims()
    (job,) = conn.execute("INSERT INTO qworker.job (task) VALUES ('t') RETURNING id").fetchone()
    claims.claim(conn, node=1, token=7, queues=["default"], priorities=[5], cursors=[0], limit=1)
    with suppressing(database.connect(), "INSERT", "NEW.is_hook"):
        with pytest.raises(WriteSuppressed):
            claims.fail(conn, 7, job, error="{}", hook=True)
        assert claims.still_claimed(conn, 7, [job]) == {job}
    assert claims.fail(conn, 7, job, error="{}", hook=True) == {job: "failed"}
    assert conn.execute("SELECT count(*) FROM qworker.job WHERE is_hook").fetchone() == (1,)


def test_a_lost_job_whose_failure_hook_is_suppressed_holds_up_no_other(harness: Harness, logged: LogRecorder) -> None:
    jobs = [
        harness.insert("task, state, node, token, claimed_at", f"'{task}', 'running', 424242, 7, now()")
        for task in ("hooked", "plain")
    ]
    node = SimpleNamespace(
        app=App(), settings=SimpleNamespace(max_node_losses=1), hooks=["hooked"],
        watermarks=SimpleNamespace(report_release=lambda _: None),
    )  # fmt: skip
    rescue = Rescue(cast("NodeContext", node), Recovery(), harness.slot, Reporter(App()), Tally(1).writer(0))
    with suppressing(harness.conn, "INSERT", "NEW.is_hook"):
        rescue.rescue_nodes(harness.conn, [424242])
        assert [harness.state(job) for job in jobs] == ["running", "failed"]
        assert ("maintenance.row_refused", jobs[0]) in [(event, facts.get("job")) for event, facts in logged]


def test_a_node_whose_heartbeat_is_suppressed_is_not_taken_for_dead(harness: Harness) -> None:
    before = harness.scheduler.header.lease_until
    with suppressing(harness.conn, "UPDATE", table="node"), pytest.raises(WriteSuppressed):
        harness.round()
    assert not harness.scheduler.header.declared_dead
    assert harness.scheduler.header.lease_until == before
    harness.round()
    assert harness.scheduler.header.lease_until > before


def test_a_node_whose_registration_is_suppressed_says_so(conn: Any, database: Database) -> None:
    with suppressing(database.connect(), "INSERT", table="node"), pytest.raises(WriteSuppressed):
        Registry().register(conn, name="n", version="1", queues=["default"], worker_count=1, lease_seconds=30.0)


def test_a_dead_node_that_cannot_be_deleted_is_reported_and_holds_up_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, logged: LogRecorder
) -> None:
    nodes = [
        Registry().register(
            harness.conn, name=name, version="1", queues=["default"], worker_count=1, lease_seconds=30.0
        )
        for name in ("kept", "gone")
    ]
    jobs = [
        harness.insert("task, state, node, token, claimed_at", f"'noop', 'running', {node}, 5, now()") for node in nodes
    ]
    harness.round()
    later = boottime() + 31.0
    monkeypatch.setattr("qworkerd.scheduler.rescue.boottime", lambda: later)
    monkeypatch.setattr(harness.scheduler.rescue, "_log", SimpleNamespace(
        error=lambda event, **facts: logged.append((event, facts)), warning=lambda *_, **__: None
    ))  # fmt: skip
    with suppressing(harness.conn, "DELETE", "OLD.name = 'kept'", table="node"):
        harness.round()
        harness.round()
        assert [harness.state(job) for job in jobs] == ["running", "available"]
        assert [(event, facts["node"]) for event, facts in logged] == [
            ("rescue.failed", nodes[0]),
            ("node.dead", nodes[1]),
        ]
        later += 31.0
    harness.round()
    assert harness.state(jobs[0]) == "available"


def test_a_dead_node_whose_row_was_locked_is_deleted_as_soon_as_it_is_not(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Registry().register(
        harness.conn, name="gone", version="1", queues=["default"], worker_count=1, lease_seconds=30.0
    )
    job = harness.insert("task, state, node, token, claimed_at", f"'noop', 'running', {node}, 5, now()")
    harness.round()
    later = boottime() + 31.0
    monkeypatch.setattr("qworkerd.scheduler.rescue.boottime", lambda: later)
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM qworker.node WHERE name = 'gone' FOR UPDATE")
        harness.round()
        assert harness.state(job) == "running"
    harness.round()
    assert harness.state(job) == "available"
