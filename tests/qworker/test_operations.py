"""Operations give each matching job its turn exactly once; and the actions that they and the command line take."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from threading import Thread
from time import monotonic
from typing import Any

import psycopg
import pytest

from qworker import App, operations
from qworker.actor import acting_as
from qworker.db.connection import connect
from qworker.filters import parse
from qworker.operations import Action, Operation, OperationNotFound, Operations
from tests.database import Database

#: 40 failed jobs with even ids up to 80, 20 available ones with odd ids, 5 scheduled ones, and 10 that have ended.
JOBS = """
INSERT INTO qworker.job (id, seq, task, queue, state, failed_at, attempt, tags)
SELECT 2 * n, -1, 't', CASE WHEN n % 2 = 0 THEN 'mail' ELSE 'default' END, 'failed', now(), 3, '{x}'
  FROM generate_series(1, 40) AS n;
INSERT INTO qworker.job (id, seq, task, state, priority)
SELECT 2 * n - 1, n, 't', 'available', 3 FROM generate_series(1, 20) AS n;
INSERT INTO qworker.job (id, task, state, run_at)
SELECT 100 + n, 't', 'scheduled', now() + interval '1 h' FROM generate_series(1, 5) AS n;
INSERT INTO qworker.job_history (id, task, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,
                                 node_losses, is_hook, queue, args, tags, meta)
SELECT 200 + n, 't', now(), now(), 'completed', 1, n, 2, 0, 0, n = 10, 'mail', '{"a": 1}', '{x}',
       '{"cron": "c", "tick": "x", "z": 1}'
  FROM generate_series(1, 10) AS n;
SELECT setval('qworker.job_id_seq', 1000), setval('qworker.job_seq', 1000);
"""


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    database.connect().execute(JOBS)
    with closing(App(database.dsn)) as made:
        yield made


@pytest.fixture
def conn(database: Database, app: App) -> Iterator[Any]:
    with connect(database.dsn, "test", lock_timeout=2.0) as made:
        yield made


@pytest.fixture
def run(conn: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Operation]:
    """Create an operation and carry it out in slices of 7 jobs."""
    monkeypatch.setattr(operations, "SLICE", 7)
    made = Operations("qworker")

    def complete(action: Action, text: str, **options: Any) -> Operation:
        found = made.create(conn, action, parse(text), upper_id=10_000, **options)
        while found.running:
            found = made.advance(conn) or made.get(conn, found.id)
        return found

    return complete


def counts(conn: Any) -> dict[str, int]:
    return dict(conn.execute("SELECT state, count(*)::int FROM qworker.jobs GROUP BY state").fetchall())


def test_a_retry_of_all_that_match_leaves_the_others_alone(run: Callable[..., Operation], conn: Any) -> None:
    done = run(Action.RETRY, "queue:mail")
    assert (done.done, done.skipped, done.failed, done.state) == (20, 0, 0, "completed")
    assert done.finished_at is not None
    assert counts(conn) == {"failed": 20, "available": 40, "scheduled": 5, "completed": 10}
    assert conn.execute(
        "SELECT min(seq) > 1000, max(attempt) FROM qworker.job WHERE id % 4 = 0 AND id <= 80"
    ).fetchone() == (True, 0)


@pytest.mark.parametrize(("action", "text", "options", "expected"), [
    (Action.CANCEL, "", {}, {"failed": 40, "cancelled": 25, "completed": 10}),
    (Action.DISCARD, "tag:x id:<41", {},
     {"failed": 20, "discarded": 20, "available": 20, "scheduled": 5, "completed": 10}),
    (Action.RUN_NOW, "", {}, {"failed": 40, "available": 25, "completed": 10}),
    (Action.AGAIN, "state:completed", {}, {"failed": 40, "available": 29, "scheduled": 5, "completed": 10}),
    (Action.RETRY, "state:available", {}, {"failed": 40, "available": 20, "scheduled": 5, "completed": 10}),
])  # fmt: skip
def test_each_action_affects_the_states_that_it_can(
    run: Callable[..., Operation], conn: Any, action: Action, text: str, options: Any, expected: dict[str, int]
) -> None:
    done = run(action, text, options=options)
    assert counts(conn) == expected
    assert done.state == "completed"


def test_a_move_changes_queue_and_priority_and_puts_available_jobs_at_the_end(
    run: Callable[..., Operation], conn: Any
) -> None:
    done = run(Action.MOVE, "state:available,scheduled,running", options={"queue": "bulk", "priority": 9})
    assert done.done == 25
    rows = conn.execute(
        "SELECT state::text, queue, priority, min(seq) > 1000 FROM qworker.job WHERE state <> 'failed' GROUP BY 1, 2, 3"
    )
    assert sorted(row for row in rows if row[0] == "available") == [("available", "bulk", 9, True)]
    assert run(Action.MOVE, "state:available", options={"queue": "bulk"}).skipped == 20


@pytest.mark.parametrize("options", [{}, {"queue": "a,b"}, {"priority": 10}, {"priority": True}])
def test_a_move_needs_a_queue_or_a_priority(conn: Any, app: App, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Operations("qworker").create(conn, Action.MOVE, parse(""), upper_id=1, options=options)
    with pytest.raises((ValueError, TypeError)):
        app.admin.move(1, **options)


def test_jobs_that_are_newer_than_the_operation_do_not_belong_to_it(conn: Any) -> None:
    made = Operations("qworker")
    operation = made.create(conn, Action.RETRY, parse(""), upper_id=40)
    while (done := made.advance(conn)) is not None and done.running:
        pass
    assert made.get(conn, operation.id).done == 20


def test_an_operation_belongs_to_its_actor_and_each_slice_is_audited(run: Callable[..., Operation], app: App) -> None:
    with acting_as("ann", address="10.0.0.1", note="ticket 7"):
        done = run(Action.RETRY, "queue:mail")
    assert (done.actor, done.address, done.note) == ("ann", "10.0.0.1", "ticket 7")
    slices = [entry for entry in app.admin.audit(actor="ann") if entry.action == "job.retry"]
    assert [entry.jobs for entry in slices] == [6, 7, 7]
    assert {(entry.via, entry.note) for entry in slices} == {("operation", f"operation {done.id}: ticket 7")}
    (created,) = [entry for entry in app.admin.audit(actor="ann") if entry.action == "operation.retry"]
    assert created.target["operation"] == done.id


def test_many_at_once_give_each_job_its_turn_once(
    database: Database, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy cannot be made twice unnoticed."""
    monkeypatch.setattr(operations, "SLICE", 1)
    made = Operations("qworker")
    operation = made.create(conn, Action.AGAIN, parse("state:completed,failed"), upper_id=999)

    def work() -> None:
        with connect(database.dsn, "test") as mine:
            while made.get(mine, operation.id).running:
                made.advance(mine)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    copies = conn.execute("SELECT (meta ->> 'copy_of')::int FROM qworker.job WHERE meta ? 'copy_of'").fetchall()
    assert sorted(row[0] for row in copies) == [*range(2, 81, 2), *range(201, 210)]
    assert made.get(conn, operation.id).done == 49


def test_a_slice_whose_session_dies_is_undone_as_a_whole(
    database: Database, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Operations("qworker")
    operation = made.create(conn, Action.AGAIN, parse("state:completed"), upper_id=999)
    dying = database.connect()
    monkeypatch.setattr(Operations, "_advanced", lambda *_, **__: dying.close())
    with suppress(psycopg.Error):
        made.advance(dying)
    monkeypatch.undo()
    assert made.get(conn, operation.id).done == 0
    while made.get(conn, operation.id).running:
        made.advance(conn)
    assert conn.execute("SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'").fetchone() == (9,)


def test_a_rate_limits_the_jobs_of_a_second(conn: Any) -> None:
    made = Operations("qworker")
    operation = made.create(conn, Action.RETRY, parse(""), upper_id=999, rate=10)
    first = made.advance(conn, operation.id)
    assert first is not None
    assert first.done == 10
    assert made.advance(conn) is None
    wait = conn.execute("SELECT extract(epoch FROM next_at - clock_timestamp()) FROM qworker.operation").fetchone()[0]
    assert -0.05 < wait <= 1.0
    conn.execute("UPDATE qworker.operation SET next_at = next_at - interval '1 h'")
    second = made.advance(conn)
    assert second is not None
    assert second.done == 20
    ahead = conn.execute("SELECT next_at <= clock_timestamp() + interval '1 s' FROM qworker.operation").fetchone()
    assert ahead == (True,)


def test_a_stopped_operation_does_not_continue(conn: Any) -> None:
    made = Operations("qworker")
    operation = made.create(conn, Action.RETRY, parse(""), upper_id=999, rate=10)
    made.advance(conn)
    stopped = made.stop(conn, operation.id)
    assert stopped is not None
    assert (stopped.state, stopped.done) == ("stopped", 10)
    conn.execute("UPDATE qworker.operation SET next_at = now() - interval '1 h'")
    assert made.advance(conn) is None
    assert made.stop(conn, operation.id) is None
    assert made.find(conn, running=True) == []
    assert [found.id for found in made.find(conn)] == [operation.id]
    with pytest.raises(OperationNotFound):
        made.get(conn, 99)


def test_locked_jobs_are_skipped_instead_of_waited_for(run: Callable[..., Operation], database: Database) -> None:
    locker = database.connect(autocommit=False)
    locker.execute("SELECT FROM qworker.job WHERE id IN (2, 4) FOR UPDATE")
    done = run(Action.RETRY, "")
    assert (done.done, done.skipped) == (38, 2)


def test_a_job_that_a_trigger_refuses_keeps_no_other_from_its_turn(
    run: Callable[..., Operation], database: Database
) -> None:
    owner = database.connect()
    owner.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON qworker.job FOR EACH ROW WHEN (OLD.id IN (2, 50))
            EXECUTE FUNCTION refuse();
    """)
    try:
        done = run(Action.RETRY, "")
    finally:
        owner.execute("DROP TRIGGER refuse ON qworker.job; DROP FUNCTION refuse()")
    assert (done.done, done.failed, done.state) == (38, 2, "completed")
    assert done.error == "job 2: not this one"


def test_durations_relate_to_the_time_of_creation(conn: Any, database: Database) -> None:
    made = Operations("qworker")
    conn.execute("UPDATE qworker.job SET enqueued_at = now() - interval '50 min' WHERE state = 'failed'")
    made.create(conn, Action.RETRY, parse("age:<1h"), upper_id=999)
    conn.execute("UPDATE qworker.operation SET created_at = created_at + interval '2 h'")
    done = made.advance(conn)
    assert done is not None
    assert done.done == 0


def test_a_filter_of_a_newer_version_ends_the_operation(conn: Any) -> None:
    made = Operations("qworker")
    operation = made.create(conn, Action.RETRY, parse(""), upper_id=999)
    conn.execute("UPDATE qworker.operation SET filter = 'colour:red'")
    done = made.advance(conn, operation.id)
    assert done is not None
    assert (done.state, done.done) == ("failed", 0)
    assert "colour" in str(done.error)


def test_the_longest_filter_can_be_stored(conn: Any) -> None:
    text = "after:" + ",".join(["2026-01-31"] * 128)
    made = Operations("qworker")
    made.create(conn, Action.CANCEL, parse(text), upper_id=999)
    done = made.advance(conn)
    assert done is not None
    assert done.state != "failed"


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_a_number_of_jobs(conn: Any, rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        Operations("qworker").create(conn, Action.RETRY, parse(""), upper_id=1, rate=rate)


def test_a_copy_has_what_its_original_had_and_names_it(app: App, conn: Any) -> None:
    copies = app.admin.again(201, 2, 101, 210)
    assert sorted(copies) == [2, 201]  # a scheduled job has not ended, and a hook is not copied
    copy = app.admin.show(copies[201])
    assert (copy.state, copy.queue, copy.priority, copy.task, copy.args, copy.tags) == (
        "available",
        "mail",
        2,
        "t",
        {"a": 1},
        ("x",),
    )
    assert copy.meta == {"copy_of": 201, "z": 1}
    assert app.admin.show(201).state == "completed"


def test_a_scheduled_job_can_be_run_now(app: App) -> None:
    assert app.admin.run_now(101, 2) == [101]
    job = app.admin.show(101)
    assert job.state == "available"
    assert job.run_at is not None
    assert job.run_at <= datetime.now(UTC)


def test_a_failed_job_is_retried_with_other_arguments(app: App) -> None:
    assert app.admin.retry(2, args={"user_id": 8}) == [2]
    assert app.admin.show(2).args == {"user_id": 8}
    assert [entry.action for entry in app.admin.audit(job=2)] == ["job.edit"]
    assert app.admin.retry(4) == [4]
    assert json.dumps(app.admin.show(4).args) == "{}"


SLOW = (
    """CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql
       AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'""",
    "CREATE TRIGGER slow BEFORE UPDATE ON qworker.job FOR EACH ROW EXECUTE FUNCTION pg_temp.slow()",
)


def test_a_slow_trigger_does_not_keep_a_scheduler_for_long(conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice that was halved again and again took longer than the lease of the node lasts."""
    monkeypatch.setattr("qworker.slices.TIME_LIMIT", 0.3)
    conn.execute("DELETE FROM qworker.job")
    conn.execute(
        "INSERT INTO qworker.job (id, task, state, failed_at)"
        " SELECT n, 't', 'failed', now() FROM generate_series(1, 200) AS n"
    )
    made = Operations("qworker")
    operation = made.create(conn, Action.RETRY, parse("state:failed"), upper_id=10_000)
    for statement in SLOW:
        conn.execute(statement)
    took = []
    monkeypatch.setitem(made._sql, "limits", "SELECT set_config('statement_timeout', '500ms', true)")
    handled = 0
    while operation.running:
        began = monotonic()
        operation = made.advance(conn) or made.get(conn, operation.id)
        took.append(monotonic() - began)
        assert operation.handled > handled or not operation.running, "each slice but the last has done something"
        handled = operation.handled
    assert (operation.done, operation.failed, operation.skipped) == (200, 0, 0)
    conn.execute("DROP TRIGGER slow ON qworker.job")
    assert max(took) < 5
    assert counts(conn) == {"available": 200, "completed": 10}
    assert len(took) < 40


def test_a_slice_that_the_database_refuses_delays_no_other_operation(
    conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Operations("qworker")
    broken = made.create(conn, Action.RETRY, parse("state:failed"), upper_id=10_000)
    good = made.create(conn, Action.CANCEL, parse("queue:default"), upper_id=10_000)
    slice_of = made._slice

    def refuse(database: Any, operation: Operation) -> Operation:
        if operation.id == broken.id:
            database.execute("SELECT 1 / 0")
        return slice_of(database, operation)

    monkeypatch.setattr(made, "_slice", refuse)
    with pytest.raises(psycopg.errors.DivisionByZero):
        made.advance(conn)
    found = made.advance(conn)
    assert found is not None
    assert found.id == good.id
    assert made.advance(conn) is None or not made.get(conn, good.id).running
    assert made.get(conn, broken.id).error == "tried again: division by zero"
    assert made.get(conn, broken.id).running
    conn.execute("UPDATE qworker.operation SET next_at = now()")
    monkeypatch.undo()
    assert made.advance(conn) is not None


@pytest.mark.parametrize("rate", [0, -1, 5e-324, 1e-300, 1e-38, 1e-5, 1e7, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_kept_is_refused(conn: Any, rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be from"):
        Operations("qworker").create(conn, Action.RETRY, parse("state:failed"), upper_id=1, rate=rate)


def test_an_operation_knows_its_share_its_speed_and_what_remains(conn: Any) -> None:
    known = Operations("qworker")
    made = known.create(conn, Action.RETRY, parse("queue:mail"), upper_id=10_000, expected=200)
    conn.execute("UPDATE qworker.operation SET done = 40, skipped = 8, failed = 2 WHERE id = %s", (made.id,))
    found = known.get(conn, made.id)
    now = found.created_at + timedelta(seconds=10)
    assert (found.handled, found.share, found.speed(now), found.remaining(now)) == (50, 0.25, 5.0, 30.0)
    assert made.remaining(now) is None  # nothing is known before the first slice
    stopped = known.stop(conn, made.id)
    assert stopped is not None
    assert stopped.remaining(now) is None
    uncounted = known.create(conn, Action.RETRY, parse("queue:mail"), upper_id=10_000)
    assert (uncounted.share, uncounted.remaining(now)) == (None, None)
    nothing = known.create(conn, Action.RETRY, parse("queue:none"), upper_id=10_000, expected=0)
    assert nothing.share == 0.0
    pages = [known.find(conn, limit=2), known.find(conn, below=uncounted.id, limit=2)]
    assert [[one.id for one in page] for page in pages] == [[nothing.id, uncounted.id], [made.id]]
