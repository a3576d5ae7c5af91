"""What is recorded of actions by hand: who, what, when, from where; and by the statement that takes them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import psycopg2  # type: ignore[import-untyped]
import pytest

from qworker import App, Job, Task, acting_as
from qworker.actor import Via, current_actor, whoami
from qworker.audit import Audit, AuditEntry
from qworker.db.connection import connect
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send", queue="mail")
    def send(n: int = 0) -> None: ...

    return send


@pytest.fixture
def failed(send: Task[..., None], fake_worker: FakeWorker) -> Callable[[], Job]:
    def make() -> Job:
        job = send.enqueue()
        assert fake_worker.claim("mail") == job.id
        fake_worker.fail(job.id)
        return job

    return make


def last(app: App) -> AuditEntry:
    return app.admin.audit(limit=1)[0]


def test_each_action_on_jobs_is_recorded_with_the_jobs_that_it_changed(
    app: App, send: Task[..., None], failed: Callable[[], Job], fake_worker: FakeWorker
) -> None:
    again, gone, waiting, running = failed(), failed(), send.enqueue(), send.enqueue()
    assert fake_worker.claim("mail") == waiting.id
    app.admin.retry(again.id, waiting.id, 999)
    app.admin.discard(gone.id)
    app.admin.cancel(running.id, waiting.id, gone.id)
    found = [(entry.action, dict(entry.target), entry.jobs) for entry in app.admin.audit()]
    assert found == [
        ("job.cancel", {"jobs": [waiting.id, running.id]}, 2),
        ("job.discard", {"jobs": [gone.id]}, 1),
        ("job.retry", {"jobs": [again.id]}, 1),
    ]


def test_pausing_and_resuming_is_recorded_with_the_reason(app: App) -> None:
    app.admin.pause("mail", "reports", reason="upstream down")
    app.queue("mail").resume()
    resumed, paused = app.admin.audit()
    assert (paused.action, paused.target, paused.note) == (
        "queue.pause",
        {"queues": ["mail", "reports"]},
        "upstream down",
    )
    assert (resumed.action, resumed.target, resumed.note) == ("queue.resume", {"queues": ["mail"]}, None)
    assert paused.jobs is resumed.jobs is None


def test_what_changes_nothing_is_not_recorded(app: App, send: Task[..., None]) -> None:
    job = send.enqueue()
    app.queue("mail").pause()
    before = app.admin.audit()
    assert not job.retry()
    assert not job.discard()
    assert not app.queue("mail").pause(reason="again")
    assert not app.queue("other").resume()
    assert app.admin.cancel(12345) == {}
    assert app.admin.audit() == before


def test_the_statement_that_takes_the_action_records_it(
    app: App, send: Task[..., None], failed: Callable[[], Job], query: Query
) -> None:
    """Each is one statement that commits by itself: what it wrote has one and the same transaction."""
    retried, discarded, cancelled = failed(), failed(), send.enqueue()
    retried.retry()
    discarded.discard()
    cancelled.cancel()
    app.queue("mail").pause()
    written = query("SELECT xmin::text FROM qworker.audit ORDER BY id")
    changed = query(
        "SELECT xmin::text FROM qworker.job WHERE id = %s"
        " UNION ALL SELECT xmin::text FROM qworker.job_history WHERE id = %s"
        " UNION ALL SELECT xmin::text FROM qworker.job_history WHERE id = %s"
        " UNION ALL SELECT xmin::text FROM qworker.queue",
        retried.id, discarded.id, cancelled.id,
    )  # fmt: skip
    assert written == changed
    assert len(set(written)) == 4


@pytest.mark.parametrize("open_connection", [psycopg.connect, psycopg2.connect])
def test_an_action_that_is_rolled_back_was_not_taken(
    app: App, send: Task[..., None], database: Database, open_connection: Callable[[str], Any]
) -> None:
    job, conn = send.enqueue(), open_connection(database.dsn)
    for end in (conn.rollback, conn.commit):
        assert app.admin.audit() == []
        conn.cursor().execute("SELECT 1")  # begins a transaction, which the action joins
        app.admin.cancel(job.id, conn=conn)
        end()
    conn.close()
    assert last(app).target == {"jobs": [job.id]}


def test_the_actor_is_the_user_of_the_process_unless_the_caller_names_one(app: App, send: Task[..., None]) -> None:
    before = datetime.now(UTC)
    send.enqueue().cancel()
    entry = last(app)
    assert (entry.actor, entry.via, entry.address, entry.note) == (whoami(), "api", None, None)
    assert before - timedelta(seconds=5) < entry.at < datetime.now(UTC) + timedelta(seconds=5)
    with acting_as("alice", via="web", address="192.0.2.7", note="ticket 12"):
        send.enqueue().cancel()
        with acting_as("bob"):
            app.queue("mail").pause(reason="mine", by="carol")
        assert current_actor().name == "alice"
    assert current_actor().name == whoami()
    pause, cancel, _ = app.admin.audit()
    assert (cancel.actor, cancel.via, cancel.address, cancel.note) == ("alice", "web", "192.0.2.7", "ticket 12")
    assert (pause.actor, pause.via, pause.note) == ("carol", "api", "mine")
    (paused,) = app.admin.paused()
    assert (paused.by, paused.reason) == ("carol", "mine")


def test_a_name_that_cannot_be_stored_does_not_prevent_the_action(app: App, send: Task[..., None]) -> None:
    for name in ("x" * 1000, "nul\0", "half \ud800 pair", "\0"):
        with acting_as(name, address="a\0" * 300, note="\udfff" * 2000):
            assert send.enqueue().cancel()
    assert [entry.actor for entry in app.admin.audit()] == ["?", "half \\ud800 pair", "nul", "x" * 200]
    with pytest.raises(ValueError, match="'fax' is not a valid Via"), acting_as(via="fax"):
        raise AssertionError


def test_the_server_adds_the_role_and_no_client_can_choose_it(app: App, database: Database, query: Query) -> None:
    (user,) = query("SELECT session_user::text")[0]
    app.queue("mail").pause()
    assert last(app).role == user
    default = (
        "SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d"
        "  JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
        " WHERE d.adrelid = 'qworker.audit'::regclass AND a.attname = 'role'"
    )
    ((expression,),) = query(default)
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("SET ROLE pg_monitor")
        shown = conn.execute(f"SELECT {expression}".encode()).fetchone()
    assert shown == (f"{user} (SET ROLE pg_monitor)",)


def test_entries_are_found_by_what_they_are_about_page_by_page(app: App, send: Task[..., None], query: Query) -> None:
    jobs = [send.enqueue() for _ in range(3)]
    with acting_as("alice"):
        app.admin.cancel(jobs[0].id, jobs[1].id)
        app.queue("mail").pause()
    jobs[2].cancel()
    query("UPDATE qworker.audit SET at = at - interval '1 day' WHERE action = 'queue.pause' RETURNING id")
    query("UPDATE qworker.audit_key SET at = at - interval '1 day' WHERE action = 'queue.pause' RETURNING id")
    find = app.admin.audit
    assert [entry.action for entry in find(job=jobs[1].id)] == ["job.cancel"]
    assert [entry.target for entry in find(queue="mail")] == [{"queues": ["mail"]}]
    assert find(job=1, queue="mail") == find(queue="ma") == find(schedule="mail") == []
    assert [entry.action for entry in find(actor="alice")] == ["job.cancel", "queue.pause"]
    assert [entry.jobs for entry in find(action="job")] == [1, 2]
    assert [entry.jobs for entry in find(action="queue.pause")] == [None]
    assert find(action="que") == []
    yesterday, hour = datetime.now(UTC) - timedelta(days=1, hours=-1), datetime.now(UTC) - timedelta(hours=1)
    assert [entry.action for entry in find(until=hour)] == ["queue.pause"]
    assert [entry.action for entry in find(since=yesterday)] == ["job.cancel", "job.cancel"]
    first, rest = find(limit=1), find(limit=50)
    assert first == rest[:1]
    assert find(below=first[0].id) == rest[1:]
    assert len(find(limit=10**9)) == 3


def test_entries_are_kept_for_400_days_and_deleted_in_bounded_steps(database: Database, query: Query) -> None:
    query(
        "INSERT INTO qworker.audit (at, actor, via, action, target)"
        " SELECT now() - make_interval(days => CASE WHEN n = 0 THEN 399 ELSE 401 END), 'a', 'api', 'job.retry',"
        """        jsonb_build_object('jobs', jsonb_build_array(n))"""
        "   FROM generate_series(0, 4001) AS n RETURNING id"
    )
    with connect(database.dsn, "test") as conn:
        assert [Audit().delete_old(conn) for _ in range(4)] == [2_000, 2_000, 1, 0]
    kept = query("SELECT id FROM qworker.audit")
    assert len(kept) == 1
    assert query("SELECT id FROM qworker.audit_key") == kept * 3, "those of the job, of the actor, and of both"


def test_the_ways_are_those_that_the_table_admits(query: Query) -> None:
    (text,) = query("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'audit_via_check'")[0]
    assert {via for via in Via if f"'{via}'" in text} == set(Via)
    assert text.count("::text") == len(Via)


def test_what_no_statement_records_is_recorded_with_the_job_or_not_at_all(app: App, database: Database) -> None:
    with connect(database.dsn, "test") as conn, acting_as("anna", via="web", address="10.0.0.7"):
        with conn.transaction():
            Audit().record(conn, "job.enqueue", {"jobs": [7], "task": "send"}, 1)
        with conn.transaction(force_rollback=True):
            Audit().record(conn, "job.enqueue", {"jobs": [8]}, 1)
    (entry,) = app.admin.audit()
    assert (entry.action, entry.actor, entry.via, entry.address) == ("job.enqueue", "anna", "web", "10.0.0.7")
    assert (entry.jobs, entry.target) == (1, {"jobs": [7], "task": "send"})
    assert app.admin.audit(job=7) == [entry]
