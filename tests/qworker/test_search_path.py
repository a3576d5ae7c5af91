"""Nothing that another role has created in the caller's search_path runs as worker, migrator, producer or operator."""

import json
import secrets
from collections.abc import Iterator

import psycopg
import pytest

from qworker import App, JobFailed, JobState
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.db.statements import PINNED, load
from qworker.maintenance import Maintenance
from qworker.migrations import migrate, script
from qworker.registry import Registry
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.planted import calls, plant

#: Types of ours: what takes exactly these fits better than what takes any enum.
OURS = ("qworker.job_state", "qworker.job_state[]")

# Whatever a default, a view, a check, an index or a function's body of ours is bound to in the schema public.
FOREIGN = """
    SELECT i.identity, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
      FROM pg_depend AS d, pg_identify_object(d.classid, d.objid, d.objsubid) AS i
     WHERE i.identity LIKE '%qworker.%' AND d.refobjid = ANY (ARRAY (
            SELECT p.oid FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
             UNION ALL
            SELECT o.oid FROM pg_operator AS o WHERE o.oprnamespace = 'public'::regnamespace))
"""


@pytest.fixture(scope="module")
def planted(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database in which everything that could be called wrongly has been created in public."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
    plant(database.dsn, *OURS)
    yield database
    database.drop(postgres_server)


@pytest.fixture
def app(planted: Database) -> Iterator[App]:
    app = App(planted.dsn)
    app.task(name="send")(send)
    yield app
    app.close()
    planted.close()


def send(user_id: int) -> int:
    return user_id


def foreign(database: Database) -> list[tuple[object, ...]]:
    """Return what of our schema leads out of it, and what it leads to."""
    conn = database.connect()
    conn.execute("SET search_path = pg_catalog")
    return list(conn.execute(FOREIGN))


def test_the_traps_are_traps(planted: Database) -> None:
    conn = planted.connect()
    for statement in (
        "SELECT nextval('qworker.job_seq')",
        "SELECT jsonb_build_object('job', 7::bigint)",
        "SELECT FROM qworker.job_history_00 WHERE state = 'failed' UNION ALL SELECT WHERE 1::smallint & 1 = 1",
    ):
        with pytest.raises(psycopg.Error, match=r"planted|boolean"):
            conn.execute(statement)


@pytest.mark.parametrize("way", ["migrate", "script"])
def test_what_stands_there_before_the_migration_is_not_bound_into_the_schema(
    empty_database: Database, way: str
) -> None:
    plant(empty_database.dsn)
    conn = empty_database.connect()
    if way == "migrate":
        migrate(conn)
    else:
        conn.execute(script().encode())
    assert foreign(empty_database) == []
    ((path,),) = conn.execute("SELECT pg_catalog.current_setting('search_path')")
    assert path == '"$user", public'
    app = App(empty_database.dsn)
    app.task(name="send")(send).enqueue(7)
    app.close()


def test_a_migration_within_the_callers_transaction_leaves_its_search_path(empty_database: Database) -> None:
    conn = empty_database.connect(autocommit=False)
    conn.execute("SET search_path = public, information_schema")
    migrate(conn)
    assert conn.execute("SHOW search_path").fetchone() == ("public, information_schema",)


@pytest.mark.parametrize("own", [True, False], ids=["own connection", "the caller's"])
def test_producers_call_nothing_of_it(app: App, planted: Database, own: bool) -> None:
    task = app.get_task("send")
    with planted.connect() as conn, conn.transaction():
        to = task.using(None if own else conn)
        to.enqueue(1)
        to.options(tags=["a"]).enqueue(1)
        to.options(delay=60, expires=90).enqueue(1)
        key = secrets.token_hex(8)
        for keyed in (to.options(unique=key), to.options(unique=f"{key} for a while", unique_for=60)):
            first = keyed.enqueue(1)
            assert keyed.enqueue(1).id == first.id
        assert to.enqueue_many([(1,)] * 3) == 3
        assert len(to.enqueue_many([(1,)] * 3, ids=True)) == 3
        assert to.options(unique=True, unique_for=60).enqueue_many([(1,)] * 3) in (0, 1)
        conn.execute("SELECT qworker.enqueue('send', args => '[1]', run_at => pg_catalog.clock_timestamp())")


def test_operators_call_nothing_of_it(app: App, planted: Database) -> None:
    task = app.get_task("send")
    failed, waiting = task.options(queue="admin").enqueue(1), task.options(delay=60).enqueue(1)
    with connect(planted.dsn, "test") as conn:
        fail(conn, "admin")
    assert app.job(failed.id).state is JobState.FAILED
    with pytest.raises(JobFailed):
        failed.wait(1)
    assert [job.id for job in app.admin.find(state="failed", queue="admin", task="send")] == [failed.id]
    app.admin.find(tag="a", below=10**6)
    assert list(app.jobs(unique="k", state="available", queue="admin", tag="a")) == []
    assert failed.retry()
    assert app.queue("admin").size() == 1
    with connect(planted.dsn, "test") as conn:
        fail(conn, "admin")
    assert app.admin.discard(failed.id) == [failed.id]
    assert app.admin.cancel(waiting.id) == {waiting.id: JobState.CANCELLED}
    for look in (app.admin.sizes, app.admin.nodes, app.admin.schedules):
        look()


def fail(conn: psycopg.Connection[tuple[object, ...]], queue: str) -> None:
    """Claim the one job of a queue and fail it for good, with a hook."""
    claims = Claims()
    ((job, *_),) = claims.claim(conn, node=1, token=5, queues=[queue], priorities=[5], cursors=[0], limit=1)
    assert isinstance(job, int)
    error = json.dumps({"attempt": 1, "type": "ValueError"})
    assert claims.fail(conn, 5, job, error=error, hook=True) == {job: "failed"}
    conn.execute("DELETE FROM qworker.job WHERE is_hook")


def test_the_end_of_a_transactional_job_calls_nothing_of_it_on_the_handlers_connection(
    app: App, planted: Database
) -> None:
    """The connection is the handler's, and keeps the search_path that the role has: handlers are the user's code."""
    job = app.get_task("send").options(queue="transactional").enqueue(1)
    claims = Claims()
    with connect(planted.dsn, "test") as ours:
        claims.claim(ours, node=1, token=5, queues=["transactional"], priorities=[5], cursors=[0], limit=1)
    conn = planted.connect(autocommit=False)
    assert claims.complete(conn, 5, job.id, duration=0.5, result="7")
    assert conn.execute("SHOW search_path").fetchone() == ('"$user", public',)
    conn.commit()
    assert job.wait(1) == 7


def test_our_sessions_look_names_up_in_pg_catalog_alone(planted: Database) -> None:
    with connect(planted.dsn, "test") as ours:
        assert ours.execute("SHOW search_path").fetchone() == (PINNED,)
        node = Registry().register(ours, name="n", version="1", queues=["q"], worker_count=1, lease_seconds=30.0)
        Registry().set_idle(ours, node, idle=True)
        Maintenance().promote(ours, due_from=0.0)
        for function, settings in ours.execute(
            "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'qworker'::regnamespace AND prosqlbody IS NULL"
        ):
            assert f"search_path={PINNED}" in (settings or []), function


@pytest.mark.parametrize("area", ["enqueue", "functions", "admin", "migrations", "claims"])
def test_every_function_in_a_statement_for_callers_connections_is_qualified(area: str) -> None:
    """Of a worker's statements only the end of a transactional job runs on a handler's connection."""
    for name, statement in load(area).items():
        if area != "claims" or name in ("lock_claimed", "acknowledge"):
            assert {function for where, function in calls(statement) if not where} == set(), name
