"""No value of a row fails a statement about other rows: every column at the extremes of its type."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from types import SimpleNamespace

import psycopg
import pytest
from psycopg.types.json import Jsonb

from qworker.admin import Admin
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.db.pool import Pool
from qworker.job import Job
from qworker.migrations import migrate
from qworker.registry import NO_CTID, Heartbeat
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Slot
from tests.database import Database
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture
from tests.qworkerd.unconstrained import drop_constraints

harness = harness_fixture

EXTREMES = {
    "bigint": ["-9223372036854775808", "-1", "0", "9223372036854775807"],
    "integer": ["-2147483648", "-1", "0", "2147483647"],
    "boolean": ["false", "true"],
    "smallint": ["-32768", "-1", "0", "32767"],
    "real": ["NaN", "Infinity", "-Infinity", "-1", "1e-30", "3e38"],
    "timestamp with time zone": ["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59+00"],
    "text": ["", "x" * 5_000, "\x1b]0;\x07\u202e", "a://b:" * 500],
    "ARRAY": ["{}", "{NULL}", "{{a,b},{c,d}}", "{" + ",".join(["t"] * 20_000) + "}"],
    "jsonb": ["null", "5", '"text"', "[]", "[1, null]", "{}", '{"x": 1e5000}', "[" * 5_000 + "]" * 5_000, "1e131071"],
    "USER-DEFINED": ["scheduled", "blocked", "available", "running", "failed", "completed", "cancelled", "discarded"],
}
DEAD = 424_242


@pytest.fixture(autouse=True)
def without_notifications() -> Iterator[None]:
    """The slot's worker is this very process: let it survive what a cancelled job is sent."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture(params=["the constraints stand", "without constraints"])
def edited(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A database of the test's own."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        if request.param == "without constraints":
            drop_constraints(conn)
    yield database
    database.drop(postgres_server)


@pytest.fixture(scope="module")
def bare(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        drop_constraints(conn)
    yield database
    database.drop(postgres_server)


@pytest.fixture
def unconstrained(bare: Database) -> Iterator[Database]:
    """A database without constraints, empty at the start of each test."""
    yield bare
    bare.empty()


def columns(conn: psycopg.Connection[tuple[str, ...]], table: str) -> list[tuple[str, list[str]]]:
    rows = conn.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'qworker' AND table_name = %s AND column_name <> 'id'",
        (table,),
    ).fetchall()
    return [(name, EXTREMES[kind]) for name, kind in rows]


def edit(conn: psycopg.Connection[tuple[str, ...]], table: str, column: str, value: str, where: str) -> bool:
    """Set a value; False where the table refuses it."""
    try:
        conn.execute(f"UPDATE qworker.{table} SET {column} = %s WHERE {where}".encode(), (value,))  # noqa: S608
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded):
        return False
    return True


def fill(conn: psycopg.Connection[tuple[str, ...]]) -> int:
    """Make a row of each kind for each value of each column; return how many were edited."""
    edits, keys = 0, count()
    starts = {
        "scheduled": "state, run_at) VALUES ('noop', 'scheduled', now()",
        "available": "priority) VALUES ('noop', 9",
        "running": f"state, node, token, claimed_at, attempt) VALUES ('noop', 'running', {DEAD}, 7, now(), 1",
        "failed": "state, failed_at) VALUES ('noop', 'failed', now() - interval '1 year'",
        "expired": "expires_at) VALUES ('noop', now() - interval '1 hour'",
        "cancelled": "cancel_requested_at) VALUES ('noop', now()",
    }
    for column, values in columns(conn, "job"):
        for value in values:
            for start in starts.values():
                ((job,),) = conn.execute(f"INSERT INTO qworker.job (task, {start}) RETURNING id".encode()).fetchall()
                edits += edit(conn, "job", column, value, f"id = {job}")
    makers = {
        "node": "(name, version, queues, worker_count, lease_seconds) VALUES ('n' || %(n)s, '', '{}', 1, 9)",
        "cron": "(name, task, expression, timezone, declared_by) VALUES ('c' || %(n)s, 't', '@daily', 'UTC', 1)",
        "unique_key": "(task, key, job_id) VALUES ('s', 'k' || %(n)s, 1)",
        "job_history": "(id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes, node_losses,"
        " is_hook, queue, task, args) VALUES (-1 - %(n)s::bigint, now(), now(), 'completed', 1, 1, 5, 0, 0, false, 'q',"
        " 't', '{}')",
    }
    names = {"node": "name", "cron": "name", "unique_key": "key", "job_history": "id"}
    for table, maker in makers.items():
        for column, values in columns(conn, table):
            for value in values:
                key = names[table]
                insert = f"INSERT INTO qworker.{table} {maker} RETURNING quote_literal({key})"
                ((number,),) = conn.execute(insert.encode(), {"n": str(next(keys))}).fetchall()
                edits += edit(conn, table, column, value, f"{key} = {number}")
    return edits


def test_whatever_stands_in_a_row_the_work_on_the_others_goes_on(
    edited: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = connect(edited.dsn, "test")
    assert fill(conn) > 300
    second_harness = Harness(edited)
    scheduler = second_harness.scheduler
    try:
        due = second_harness.insert("task, state, run_at", "'noop', 'scheduled', now()")
        orphan = second_harness.insert(
            "task, state, node, token, claimed_at", f"'noop', 'running', {DEAD + 1}, 5, now()"
        )
        mine = second_harness.run()
        second_harness.slot.words[Slot.PID] = os.getpid()
        conn.execute(
            "UPDATE qworker.job SET state = 'running', node = %s, token = %s, claimed_at = now(),"
            " cancel_requested_at = now()"
            " WHERE id = %s",
            (second_harness.node.table.header.node, second_harness.slot.claims[0].token, mine),
        )
        gone = second_harness.insert("task, expires_at", "'noop', now() - interval '1 hour'")
        old = second_harness.insert("task, state, failed_at", "'noop', 'failed', now() - interval '1 year'")
        message: list[tuple[str, object]] = []
        record = SimpleNamespace(
            warning=lambda event, **facts: message.append((event, facts)),
            error=lambda event, **facts: message.append((event, facts)),
        )
        for part in (scheduler.maintenance, scheduler.poller, scheduler.schedules):
            monkeypatch.setattr(part, "_log", record)
        for duty in scheduler.maintenance._tasks:
            duty.due = 0.0
        scheduler.poller._thorough.due = 0.0
        second_harness.round()
        assert scheduler.poller.succeeded
        assert second_harness.slot.words[Slot.CANCEL] == mine
        states = [second_harness.state(job) for job in (due, orphan, gone, old)]
        assert states == ["available", "available", "cancelled", "discarded"]
        assert message == []
        taken = Claims().claim(
            second_harness.conn,
            node=1,
            token=3,
            queues=["default"] * 10,
            priorities=range(10),
            cursors=[0] * 10,
            limit=10_000,
        )
        assert due in [row[0] for row in taken]
    finally:
        scheduler.connection.drop()
        second_harness.conn.close()
        conn.close()
    with closing(Pool(edited.dsn)) as pool:
        admin = Admin(pool)
        jobs = admin.find(limit=10_000)
        assert {due, orphan, gone, old} <= {job.id for job in jobs}
        assert all(isinstance(admin.show(job.id), Job) for job in jobs[:50])
        admin.nodes()
        admin.schedules()
        admin.sizes()


@pytest.mark.parametrize("sees", [True, False], ids=["one look", "piece by piece"])
@pytest.mark.parametrize(
    ("column", "value"),
    [(name, value) for name, kind in (("lease_seconds", "real"), ("heartbeat", "bigint"), ("released_seq", "bigint"))
     for value in EXTREMES[kind]] + [("lease_seconds", "1e30"), ("lease_seconds", "1e-30")],
)  # fmt: skip
def test_whatever_a_node_says_of_itself_the_jobs_of_others_are_rescued(
    unconstrained: Database, monkeypatch: pytest.MonkeyPatch, column: str, value: str, *, sees: bool
) -> None:
    second_harness = Harness(unconstrained)
    try:
        if not sees:
            monkeypatch.setitem(second_harness.scheduler.registry._sql, "poll", "SELECT 1 / (%(node)s::bigint * 0)")
        nodes = [
            second_harness.scheduler.registry.register(
                second_harness.conn, name=name, version="1", queues=["default"], worker_count=1, lease_seconds=30.0
            )
            for name in ("strange", "lost")
        ]
        strange = nodes[0]
        assert edit(second_harness.conn, "node", column, value, f"id = {strange}")
        message: list[str] = []
        record = SimpleNamespace(
            warning=lambda event, **_: message.append(event), error=lambda event, **_: message.append(event)
        )
        monkeypatch.setattr(second_harness.scheduler.maintenance, "_log", record)
        jobs = [
            second_harness.insert("task, state, node, token, claimed_at", f"'noop', 'running', {node}, 5, now()")
            for node in nodes
        ]
        second_harness.round()
        second_harness.round()
        assert [second_harness.state(job) for job in jobs] == ["running", "running"]
        later = boottime() + 31.0
        monkeypatch.setattr("qworkerd.scheduler.rescue.boottime", lambda: later)
        second_harness.scheduler.registry.renew(
            second_harness.conn,
            strange,
            Heartbeat(
                Jsonb({}), None, second_harness.scheduler.registry.find_ctid(second_harness.conn, strange) or NO_CTID
            ),
        )
        second_harness.round()
        assert [second_harness.state(job) for job in jobs] == ["running", "available"]
        later += 86_401.0
        second_harness.round()
        assert second_harness.state(jobs[0]) == "available", (
            "a node whose lease says nothing is not waited for for ever"
        )
        assert message == []
    finally:
        second_harness.scheduler.connection.drop()
        second_harness.conn.close()


@pytest.mark.parametrize("seconds", ["infinity", "-infinity"])
def test_the_sql_function_refuses_a_time_that_never_comes(database: Database, seconds: str) -> None:
    with (
        database.connect() as conn,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="run_at must be finite"),
    ):
        conn.execute("SELECT qworker.enqueue('t', run_at => %s)", (seconds,))


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("run_at, state", "'infinity', 'scheduled'"),
        ("run_at, state", "'1969-12-31', 'scheduled'"),
        ("queue", "repeat('q', 201)"),
        ("tags", "array_fill('t'::text, ARRAY[51])"),
        ("args", """jsonb_build_object('x', repeat('x', 1100000))"""),
        ("args", """jsonb_build_object('x', array_to_json(array_fill(1e131071::numeric, ARRAY[20])))"""),
        ("overrides", """jsonb_build_object('x', array_to_json(array_fill(1e131071::numeric, ARRAY[20])))"""),
    ],
)  # fmt: skip
def test_a_producer_cannot_write_what_no_worker_could_read(database: Database, columns: str, values: str) -> None:
    with database.connect() as conn, pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"INSERT INTO qworker.job (task, {columns}) VALUES ('t', {values})".encode())  # noqa: S608


def test_a_look_that_fails_takes_no_duty_with_it(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    message: list[str] = []
    monkeypatch.setattr(
        harness.scheduler.poller, "_log", SimpleNamespace(error=lambda event, **_: message.append(event))
    )
    monkeypatch.setitem(harness.scheduler.registry._sql, "poll", "SELECT 1 / (%(node)s::bigint * 0)")
    ticks = count()
    monkeypatch.setattr(harness.scheduler.schedules, "enqueue", lambda _: 0 * next(ticks))
    due = harness.insert("task, state, run_at", "'noop', 'scheduled', now()")
    orphan = harness.insert("task, state, node, token, claimed_at", f"'noop', 'running', {DEAD}, 5, now()")
    mine = harness.run()
    harness.slot.words[Slot.PID] = os.getpid()
    harness.conn.execute("UPDATE qworker.job SET cancel_requested_at = now() WHERE id = %s", (mine,))
    for _ in range(2):
        harness.scheduler.header.lease_until = 0.0
        harness.round()
        assert harness.scheduler.header.lease_until > 0.0
    assert (harness.state(due), harness.state(orphan)) == ("available", "available")
    assert harness.slot.words[harness.slot.CANCEL] == mine
    assert next(ticks) >= 2
    assert message == ["scheduler.poll_failed"]  # the same again is not news
