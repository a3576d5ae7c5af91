"""What each role needs, what it can do with that, and what it cannot."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import psycopg2  # type: ignore[import-untyped]
import pytest

from qworker import App, Job, JobState
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.errors import SchemaError
from qworker.maintenance import Maintenance
from qworker.queues import Queues
from qworker.registry import NO_CTID, Registry
from qworker.rights import check
from qworkerd.embedded import EmbeddedPostgres
from tests import roles
from tests.database import Database

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture(scope="module")
def guarded(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database, and a role of each kind with what the page grants it."""
    with roles.guarded_database(postgres_server) as database:
        yield database


@pytest.fixture
def dsn(guarded: Database) -> Iterator[Callable[[str], str]]:
    yield lambda role: roles.login(guarded.dsn, role)
    guarded.empty()


@pytest.fixture
def session(dsn: Callable[[str], str]) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    opened = []

    def connect(role: str) -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(dsn(role), autocommit=True))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


def application(dsn: str) -> App:
    app = App(dsn)

    @app.task(name="send", queue="mail", priority=3)
    def send(user_id: int, text: str = "hi") -> None: ...

    return app


@pytest.fixture
def producer(dsn: Callable[[str], str]) -> Iterator[App]:
    app = application(dsn("producer"))
    yield app
    app.close()


@pytest.fixture
def owner(guarded: Database) -> Iterator[App]:
    app = application(guarded.dsn)
    yield app
    app.close()


ROW = """
    SELECT task, args, queue, priority, state::text, overrides, tags, holds_key, is_hook, attempt, crashes, node_losses,
           unknown_task_count, token,
           node, run_at IS NULL, extract(epoch FROM run_at - enqueued_at)::int,
           extract(epoch FROM expires_at - enqueued_at)::int
      FROM qworker.job ORDER BY id
"""

WAYS: dict[str, Callable[[App], object]] = {
    "plain": lambda app: app.get_task("send").enqueue(7),
    "text": lambda app: app.get_task("send").enqueue(7, 'a "quoted" \\ text\n\t\u20ac'),
    "options": lambda app: app.get_task("send").options(timeout=5, retry=7, tags=["a", "b"], priority=0).enqueue(7),
    "later": lambda app: app.get_task("send").options(delay=60, expires=90).enqueue(7),
    "unique": lambda app: app.get_task("send").options(unique="k").enqueue(7),
    "unique for a while": lambda app: app.get_task("send").options(unique_for=60).enqueue(7),
    "many": lambda app: app.get_task("send").enqueue_many([(n, "\\ \t") for n in range(1200)]),
    "many with ids": lambda app: (
        app.get_task("send").options(delay=60, tags=["x"]).enqueue_many([(1,), (2,)], ids=True)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_producer_without_rights_on_tables_stores_the_same_row(
    producer: App, owner: App, guarded: Database, way: str
) -> None:
    conn = guarded.connect()
    rows, keys = [], []
    for app in (producer, owner):
        WAYS[way](app)
        rows.append(conn.execute(ROW).fetchall())
        keys.append(conn.execute("SELECT task, key, expires_at IS NULL FROM qworker.unique_key").fetchall())
        conn.execute("TRUNCATE qworker.job, qworker.unique_key")
    assert rows[0] == rows[1]
    assert keys[0] == keys[1]
    assert rows[0]


def test_what_a_producer_gets_back_is_the_job(producer: App, owner: App) -> None:
    job = producer.get_task("send").options(delay=60, tags=["a"]).enqueue(7)
    seen = owner.job(job.id)
    assert (job.state, job.queue, job.args, job.tags) == (seen.state, seen.queue, {"user_id": 7}, ("a",))
    assert job.run_at == seen.run_at
    assert job.enqueued_at == seen.enqueued_at
    ids = producer.get_task("send").enqueue_many([(n,) for n in range(600)], ids=True)
    assert isinstance(ids, list)
    assert [owner.job(id_).args["user_id"] for id_ in ids[::100]] == list(range(600))[::100]


def test_a_producer_learns_of_a_duplicate_its_id_and_state_alone(producer: App, owner: App) -> None:
    first = owner.get_task("send").options(unique="k").enqueue(7, "secret")
    again = producer.get_task("send").options(unique="k").enqueue(7)
    assert (again.id, again.duplicate, again.state, again.args) == (first.id, True, JobState.AVAILABLE, {})
    owner.admin.cancel(first.id)
    third = producer.get_task("send").options(unique="k").enqueue(7)
    assert not third.duplicate


def test_a_producers_jobs_belong_to_its_transaction(
    producer: App, session: Callable[[str], psycopg.Connection[Any]], owner: App
) -> None:
    conn = session("producer")
    task = producer.get_task("send").using(conn)
    with conn.transaction(force_rollback=True):
        task.enqueue(1)
        task.options(unique="k").enqueue(1)
        task.enqueue_many([(1,)])
    with conn.transaction(), pytest.raises(TypeError, match="row 1"):
        task.enqueue_many([(1,), (1, 2, 3)])
    assert owner.admin.find() == []
    with conn.transaction():
        conn.execute("SELECT qworker.enqueue('send')")
        task.enqueue(1)
    assert len(owner.admin.find()) == 2


@pytest.mark.parametrize(
    "forbidden",
    [
        "SELECT * FROM qworker.job", "SELECT * FROM qworker.jobs", "SELECT * FROM qworker.job_history",
        "INSERT INTO qworker.job (task, is_hook) VALUES ('t', true)", "INSERT INTO qworker.job (task) VALUES ('t')",
        "UPDATE qworker.job SET token = 1", "DELETE FROM qworker.job", "SELECT nextval('qworker.job_id_seq')",
        "SELECT * FROM qworker.unique_key", "DELETE FROM qworker.node", "SELECT * FROM qworker.idle_node",
        "INSERT INTO qworker.queue (name) VALUES ('q')", "SELECT * FROM qworker.queue",
        "TRUNCATE qworker.job_history_00", "SELECT qworker.truncate_day('job_history', 0)",
        "CREATE TABLE qworker.mine ()",
    ],
)  # fmt: skip
def test_a_producer_can_neither_read_nor_change_anything_else(
    session: Callable[[str], psycopg.Connection[Any]], forbidden: str
) -> None:
    with pytest.raises(DENIED):
        session("producer").execute(forbidden.encode())


def test_a_producer_can_neither_pause_nor_resume_a_queue(producer: App, owner: App) -> None:
    owner.queue("mail").pause()
    for change in (producer.queue("mail").pause, producer.queue("mail").resume, producer.queue("other").pause):
        with pytest.raises(DENIED):
            change()
    assert [pause.queue for pause in owner.admin.paused()] == ["mail"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE qworker.audit SET actor = 'x'", "DELETE FROM qworker.audit", "TRUNCATE qworker.audit",
        "INSERT INTO qworker.audit (role, actor, via, action, target) VALUES ('x', 'x', 'api', 'x', '{}')",
        "INSERT INTO qworker.audit (at, actor, via, action, target) VALUES (now(), 'x', 'api', 'x', '{}')",
        "INSERT INTO qworker.audit (id, actor, via, action) OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'api', 'x')",
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", roles.ROLES)
def test_nobody_but_the_owner_can_forge_the_time_or_role_of_an_action_or_undo_its_record(
    session: Callable[[str], psycopg.Connection[Any]], role: str, change: str
) -> None:
    with pytest.raises(DENIED):
        session(role).execute(change.encode())


@pytest.mark.parametrize("function", ["enqueue", "enqueue_jobs"])
@pytest.mark.parametrize("key", ["cron", "tick"])
def test_a_producer_cannot_pass_off_a_job_as_a_tick(
    session: Callable[[str], psycopg.Connection[Any]], function: str, key: str
) -> None:
    call: Any = {"enqueue": "SELECT qworker.enqueue('t', meta => %s)", "enqueue_jobs": CALL}[function]
    meta = json.dumps({key: "report"})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="which mark the job of a tick"):
        session("producer").execute(call, [meta] if function == "enqueue" else [*GOOD[:12], meta])


def test_a_producer_enqueues_through_psycopg2(producer: App, dsn: Callable[[str], str], owner: App) -> None:
    with closing(psycopg2.connect(dsn("producer"))) as conn:
        task = producer.get_task("send").using(conn)
        made = [task.enqueue(1), task.options(unique="k", delay=5).enqueue(2)]
        assert task.enqueue_many([(3,), (4,)]) == 2
        assert owner.admin.find() == []
        conn.commit()
    assert len(owner.admin.find()) == 4
    assert owner.job(made[1].id).state == JobState.SCHEDULED


CALL = "SELECT * FROM qworker.enqueue_jobs(%s, %s::jsonb[], %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
GOOD: list[Any] = ["t", ["{}"], "q", 5, None, None, None, None, None, None, None, None, None]


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, ""), (0, None), (0, "x" * 201), (1, []), (1, None), (1, ["[]"]), (1, ["{}", None]), (2, ""), (2, "x" * 201),
        (0, "a\nb"), (2, "a,b"), (2, " a"), (2, "a\t"), (2, "a\u00a0"), (5, ["a\x1b"]), (10, "a\r"),
        (1, ["{}"] * 10_001), (1, ['{"x": 1e131000, "y": 1e131000, "z": "' + "x" * 800_000 + '"}']), (3, 10),
        (3, -1), (3, None), (12, "[]"), (12, "null"), (12, json.dumps({"x": "x" * 10_000})),
        (4, "[]"), (4, '{"cron": "x"}'), (4, json.dumps({"retry": "x" * 10_000})),
        (5, ["x"] * 51), (5, [None]), (5, [""]),
        (6, -1), (6, float("nan")), (6, float("inf")), (7, "infinity"), (7, "-infinity"), (8, 1e300), (9, "infinity"),
        (10, ""), (10, "x" * 401), (11, float("inf")),
    ],
)  # fmt: skip
def test_the_function_refuses_what_python_would_not_send(
    session: Callable[[str], psycopg.Connection[Any]], position: int, value: Any
) -> None:
    values = [*GOOD[:position], value, *GOOD[position + 1 :]]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="qworker: "):
        session("producer").execute(CALL, values)


@pytest.mark.parametrize(
    ("priority", "meta", "message"),
    [
        (10, None, "priority must be between 0 (first) and 9, not 10; with meta, between -95 and 105"),
        (-1, None, "not -1; with meta"),
        (106, "{}", "priority must be between -95 (first) and 105, not 106"),
        (-96, "{}", "not -96"),
        (None, "{}", "not NULL"),
    ],
)
def test_a_priority_that_no_node_would_claim_is_refused(
    session: Callable[[str], psycopg.Connection[Any]], priority: int | None, meta: str | None, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=re.escape(message)):
        session("producer").execute(CALL, [*GOOD[:3], priority, *GOOD[4:12], meta])


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("priority", [-95, 105])
def test_a_job_with_meta_may_have_a_priority_of_djangos_tasks(
    session: Callable[[str], psycopg.Connection[Any]], guarded: Database, priority: int, key: str | None
) -> None:
    session("producer").execute(CALL, [*GOOD[:3], priority, *GOOD[4:10], key, None, '{"run_after": "x"}'])
    with guarded.connect() as conn:
        assert conn.execute("SELECT priority, meta FROM qworker.job").fetchall() == [(priority, {"run_after": "x"})]


def test_a_worker_needs_no_more_than_the_page_grants(
    session: Callable[[str], psycopg.Connection[Any]], owner: App
) -> None:
    conn = session("worker")
    claims = Claims()
    maintenance, registry = Maintenance(), Registry()
    node = registry.register(conn, name="n", version="1", queues=["mail"], worker_count=1, lease_seconds=30.0)
    registry.set_idle(conn, node, idle=True)
    registry.set_idle(conn, node, idle=False)
    made = [owner.get_task("send").options(unique=f"k{n}").enqueue(n) for n in range(4)]
    rows = claims.claim(conn, node=node, token=5, queues=["mail"], priorities=[3], cursors=[0], limit=9)
    assert len(rows) == 4
    assert claims.acknowledge(conn, 5, [made[0].id]) == [made[0].id]
    error = '{"type": "E"}'
    assert claims.fail(conn, 5, made[1].id, error=error, hook=True)
    assert claims.retry(conn, 5, made[2].id, delay=0, error=error)
    assert claims.release(conn, 5, [made[3].id])
    maintenance.promote(conn, due_from=0.0)
    assert Queues().paused(conn) == []
    assert registry.find_ctid(conn, node) not in (None, NO_CTID)
    for day in range(32):
        conn.execute("SELECT qworker.truncate_day('job_history', %s), qworker.truncate_day('job_log', %s)", [day, day])
    for forbidden in ("DROP TABLE qworker.job", "TRUNCATE qworker.job", "UPDATE qworker.migration SET name = ''"):
        with pytest.raises(DENIED):
            conn.execute(forbidden.encode())


def test_a_handler_needs_two_more_privileges_to_pause_a_queue(
    guarded: Database, session: Callable[[str], psycopg.Connection[Any]]
) -> None:
    owner, conn, queues = guarded.connect(), session("worker"), Queues()
    with pytest.raises(DENIED):
        queues.pause(conn, ["mail"], None, None)
    owner.execute("GRANT INSERT, UPDATE ON qworker.queue TO worker")
    try:
        for _ in range(2):  # the second time, the row exists
            assert queues.pause(conn, ["mail"], None, None) == queues.resume(conn, ["mail"]) == ["mail"]
    finally:
        owner.execute("REVOKE INSERT, UPDATE ON qworker.queue FROM worker")


def test_a_viewer_sees_everything_and_changes_nothing(dsn: Callable[[str], str], owner: App) -> None:
    job = owner.get_task("send").enqueue(7)
    viewer = application(dsn("viewer"))
    assert viewer.job(job.id).args == {"user_id": 7}
    assert [found.id for found in viewer.admin.find()] == [job.id]
    for look in (
        viewer.admin.sizes,
        viewer.admin.queues,
        viewer.admin.paused,
        viewer.admin.nodes,
        viewer.admin.schedules,
    ):
        look()
    for change in (
        lambda: viewer.admin.cancel(job.id), lambda: viewer.get_task("send").enqueue(1),
        lambda: viewer.queue("mail").pause(), lambda: viewer.queue("mail").resume(),
    ):  # fmt: skip
        with pytest.raises(DENIED):
            change()
    viewer.close()


def test_an_admin_changes_jobs_and_queues_and_enqueues(dsn: Callable[[str], str], owner: App) -> None:
    task = owner.get_task("send")
    jobs: list[Job] = [task.options(unique=f"k{n}").enqueue(7) for n in range(3)]
    with owner.pool.connection() as conn:
        conn.execute(
            "UPDATE qworker.job SET state = 'failed', failed_at = now() WHERE id = ANY (%s)", [[jobs[0].id, jobs[1].id]]
        )
    admin = application(dsn("admin"))
    assert admin.admin.retry(jobs[0].id) == [jobs[0].id]
    assert admin.admin.discard(jobs[1].id) == [jobs[1].id]
    assert admin.admin.cancel(jobs[2].id) == {jobs[2].id: JobState.CANCELLED}
    for _ in range(2):  # the second time, the row exists
        assert admin.queue("mail").pause()
        assert admin.queue("mail").resume()
    assert admin.get_task("send").enqueue_many([(1,), (2,)]) == 2
    assert admin.get_task("send").options(unique="k").enqueue(1).state == JobState.AVAILABLE
    assert {entry.role for entry in admin.admin.audit()} == {"admin"}
    admin.close()


def test_policies_do_not_limit_a_producer_that_calls_the_function(
    guarded: Database, session: Callable[[str], psycopg.Connection[Any]], producer: App
) -> None:
    conn = guarded.connect()
    conn.execute("ALTER TABLE qworker.job ENABLE ROW LEVEL SECURITY")
    conn.execute("CREATE POLICY mine ON qworker.job TO producer USING (queue = 'mail') WITH CHECK (queue = 'mail')")
    try:
        session("producer").execute("SELECT qworker.enqueue('send', queue => 'other')")
        producer.get_task("send").options(queue="another").enqueue(7)
    finally:
        conn.execute("DROP POLICY mine ON qworker.job")
        conn.execute("ALTER TABLE qworker.job DISABLE ROW LEVEL SECURITY")
    assert conn.execute("SELECT queue FROM qworker.job ORDER BY queue").fetchall() == [("another",), ("other",)]


def test_the_view_shows_a_reader_no_more_than_a_policy_lets_it(
    guarded: Database, session: Callable[[str], psycopg.Connection[Any]], owner: App
) -> None:
    conn = guarded.connect()
    if conn.info.server_version < 150_000:
        pytest.skip("PostgreSQL 14 has no such views")
    owner.get_task("send").enqueue(1)
    owner.get_task("send").options(queue="other").enqueue(1)
    conn.execute("ALTER TABLE qworker.job ENABLE ROW LEVEL SECURITY")
    conn.execute("CREATE POLICY mine ON qworker.job TO viewer USING (queue = 'mail')")
    try:
        assert session("viewer").execute("SELECT queue FROM qworker.jobs").fetchall() == [("mail",)]
    finally:
        conn.execute("DROP POLICY mine ON qworker.job")
        conn.execute("ALTER TABLE qworker.job DISABLE ROW LEVEL SECURITY")


def test_what_a_node_lacks_is_named_and_a_worker_lacks_nothing(dsn: Callable[[str], str]) -> None:
    with connect(dsn("worker"), "test") as conn:
        check(conn)
    with (
        connect(dsn("viewer"), "test") as conn,
        pytest.raises(SchemaError, match="'viewer' lacks") as caught,
    ):
        check(conn)
    for right in (
        "INSERT on job,",
        "UPDATE on node",
        "EXECUTE on truncate_day",
        "USAGE on job_seq",
        "INSERT (actor) on audit",
        "`qworker db grant --role viewer --as worker`",
    ):
        assert right in str(caught.value)
    assert "SELECT" not in str(caught.value)
