"""Rows that no statement of ours leaves behind: every one of them ends, and none keeps a node from ending."""

import threading
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from qworker.maintenance import Maintenance
from qworkerd.scheduler import sequences
from qworkerd.scheduler.retention import MIN_ID
from tests.database import Database
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture
from tests.refusing import refusing
from tests.waiting import until

harness = harness_fixture

DEAD = 424_242


@pytest.fixture
def logged(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    logged: list[Any] = []
    record = SimpleNamespace(warning=lambda event, **facts: logged.append((event, facts.get("done"))))
    monkeypatch.setattr(harness.scheduler.routine.repair, "_log", record)
    return logged


def repair(harness: Harness) -> None:
    database = harness.scheduler.connection.get()
    assert database is not None
    harness.scheduler.routine.repair.run(database)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("task, state", "'noop', 'running'"),
        ("task, state, token", "'noop', 'running', 5"),
        ("task, state, node, claimed_at", "'noop', 'running', NODE, now()"),
        ("task, state, node, claimed_at", f"'noop', 'running', {DEAD}, now()"),
        ("task, state, node, token, claimed_at", "'noop', 'running', NODE, 5, NULL"),
        ("task, state, node, token, claimed_at", "'noop', 'running', NODE, 5, '-infinity'"),
        ("task, state, node, token, claimed_at", "'noop', 'running', NODE, 5, now() - interval '2 minutes'"),
        ("task, seq", "'noop', 0"),
        ("task, seq", "'noop', -9223372036854775808"),
    ],
)
def test_a_job_that_nobody_would_run_is_run(harness: Harness, logged: list[Any], columns: str, values: str) -> None:
    job = harness.insert(columns, values.replace("NODE", str(harness.node.table.header.node)))
    repair(harness)
    ((state, seq, token, node),) = harness.conn.execute(
        "SELECT state::text, seq, token, node FROM qworker.job WHERE id = %s", (job,)
    ).fetchall()
    assert (state, token, node) == ("available", None, None)
    assert seq > 0
    assert len(logged) == 1


def test_a_job_that_runs_for_long_is_left_alone(harness: Harness, logged: list[Any]) -> None:
    job = harness.run()
    harness.conn.execute("UPDATE qworker.job SET claimed_at = now() - interval '1 day'")
    repair(harness)
    assert harness.state(job) == "running"
    assert logged == []


@pytest.mark.parametrize("state", ["blocked", "completed", "cancelled", "discarded"])
def test_a_job_in_a_state_that_is_not_entered_here_is_put_away(harness: Harness, logged: list[Any], state: str) -> None:
    job = harness.insert("task, state, holds_key", f"'noop', '{state}', true")
    harness.conn.execute("INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('noop', 'k', %s)", (job,))
    repair(harness)
    assert harness.state(job) == "discarded"
    ((error,),) = harness.conn.execute("SELECT errors -> -1 FROM qworker.job_history").fetchall()
    assert error["type"] == "InvalidState"
    assert f"the state {state} was written" in error["message"]
    assert harness.conn.execute("SELECT FROM qworker.unique_key").fetchall() == []
    assert logged == [("jobs.repaired", "discarded")]


@pytest.mark.parametrize("state", ["blocked", "completed", "failed"])
def test_what_says_when_it_failed_goes_with_what_has(harness: Harness, state: str) -> None:
    job = harness.insert("task, state, failed_at", f"'noop', '{state}', now() - interval '1 year'")
    repair(harness)
    harness.scheduler.retention.discard(harness.conn)
    assert harness.state(job) == "discarded"


def test_a_failure_without_a_time_is_kept_from_now_on(harness: Harness, logged: list[Any]) -> None:
    job = harness.insert("task, state", "'noop', 'failed'")
    repair(harness)
    assert harness.state(job) == "failed"
    assert harness.conn.execute("SELECT failed_at > now() - interval '1 minute' FROM qworker.job").fetchall() == [
        (True,)
    ]
    assert logged == [("jobs.repaired", "dated")]


def test_what_is_in_order_is_left_alone(harness: Harness, logged: list[Any]) -> None:
    jobs = [
        harness.insert(),
        harness.insert("task, state, run_at", "'noop', 'scheduled', now() + interval '1 hour'"),
        harness.insert("task, state, failed_at", "'noop', 'failed', now()"),
    ]
    rows = "SELECT * FROM qworker.job WHERE id = ANY (%s) ORDER BY id"
    before = harness.conn.execute(rows, (jobs,)).fetchall()
    repair(harness)
    assert harness.conn.execute(rows, (jobs,)).fetchall() == before
    assert logged == []


def test_the_repair_is_a_duty(harness: Harness) -> None:
    job = harness.insert("task, state", "'noop', 'running'")
    for duty in harness.scheduler.maintenance._tasks:
        duty.due = 0.0 if duty.name == "repair" else inf
    harness.round()
    assert harness.state(job) == "available"


def test_a_sequence_that_is_behind_is_an_event_with_a_remedy(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(
        "qworkerd.scheduler.sequences.log.get",
        lambda: SimpleNamespace(error=lambda event, **facts: logged.append((event, facts))),
    )
    harness.insert()
    harness.conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
    sequences.report(harness.conn, "qworker")
    ((event, facts),) = logged
    assert (event, facts["sequence"], facts["at"]) == ("sequence.behind", "job_id_seq", 0)
    assert "`qworker db repair`" in facts["hint"]


# Keys


def test_a_key_that_was_locked_when_its_job_ended_is_dropped_later(harness: Harness) -> None:
    """And so is one whose job failed; the key of a job that is not over stays, whoever holds it."""
    ends = {
        "gone": None,
        "kept": harness.insert("task, holds_key", "'noop', true"),
        "failed": harness.insert("task, state, failed_at", "'noop', 'failed', now()"),
    }
    for key, job in ends.items():
        harness.conn.execute(
            "INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('noop', %s, %s)", (key, job or 99_999)
        )
    harness.conn.execute(
        "INSERT INTO qworker.unique_key (task, key, job_id, expires_at) VALUES"
        " ('noop', 'period', 99999, now() + interval '1 hour'), ('noop', 'over', 99999, now() - interval '1 hour')"
    )
    harness.scheduler.retention.delete_expired_keys(harness.conn)
    harness.scheduler.retention.delete_unheld_keys(harness.conn)
    keys = harness.conn.execute("SELECT key FROM qworker.unique_key ORDER BY key").fetchall()
    assert keys == [("kept",), ("period",)]


def test_all_keys_are_looked_through_a_part_at_a_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.scheduler.retention.TIME_LIMIT", 0.0)
    harness.conn.execute(
        "INSERT INTO qworker.job (id, task, holds_key)"
        " SELECT n, 'noop', true FROM generate_series(1000001, 1002500) AS n"
    )
    harness.conn.execute(
        "INSERT INTO qworker.unique_key (task, key, job_id)"
        " SELECT 'noop', n, n FROM generate_series(1000001, 1002600) AS n"
    )
    retention = harness.scheduler.retention
    left = []
    for _ in range(4):
        retention.delete_unheld_keys(harness.conn)
        left += harness.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchall()
    assert left == [(2600,), (2600,), (2500,), (2500,)]
    assert retention._keys_from == MIN_ID


def test_a_key_that_is_taken_over_meanwhile_stays(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that takes it over cannot be seen by a statement that began before: the key's row has to tell."""
    harness.conn.execute("INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('noop', 'k', 99999)")
    producer = database.connect(autocommit=False)
    producer.execute("SELECT pg_advisory_xact_lock(77)")
    maintenance = Maintenance()
    paused = maintenance._sql["delete_unheld_keys"].replace(
        "FROM checked AS s", "FROM checked AS s CROSS JOIN (SELECT pg_advisory_xact_lock(77)) AS pause"
    )
    monkeypatch.setitem(maintenance._sql, "delete_unheld_keys", paused)
    thread = threading.Thread(target=maintenance.delete_unheld_keys, args=(harness.conn, MIN_ID))
    thread.start()
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    until(lambda: producer.execute(waiting).fetchall())
    producer.execute("UPDATE qworker.unique_key SET job_id = 100000")
    producer.execute("INSERT INTO qworker.job (id, task, holds_key) VALUES (100000, 'noop', true)")
    producer.commit()
    thread.join(10)
    assert harness.conn.execute("SELECT job_id FROM qworker.unique_key").fetchall() == [(100000,)]


def test_a_row_that_a_trigger_refuses_holds_up_no_other_kind(harness: Harness, logged: list[Any]) -> None:
    refused = harness.insert("task, state", "'noop', 'running'")
    undated = harness.insert("task, state", "'noop', 'failed'")
    with refusing(harness.conn, "UPDATE", f"OLD.id = {refused}"):
        repair(harness)
    assert logged == [("maintenance.error", None), ("jobs.repaired", "dated")]
    assert (harness.state(refused), harness.state(undated)) == ("running", "failed")
