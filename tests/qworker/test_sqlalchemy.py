"""Jobs in the transactions of SQLAlchemy."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pg8000.dbapi  # type: ignore[import-untyped]
import psycopg2  # type: ignore[import-untyped]
import psycopg2.extras  # type: ignore[import-untyped]
import pytest
import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qworker import App, InvalidOperation, JobNotFound, JobState, QworkerError, SchemaError, Task
from qworker.retry import Retry
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query
from tests.qworker.drivers import DRIVERS, url

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int) -> None: ...

    return send


@pytest.fixture(params=DRIVERS)
def engine(database: Database, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(url(database.dsn, request.param))
    yield engine
    engine.dispose()


@pytest.fixture
def work(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def test_jobs_of_a_session_are_read_on_the_session(send: Task[..., None], app: App, engine: Engine) -> None:
    with Session(engine) as session:
        job = send.using(session).enqueue(1)
        assert app.admin.find() == []
        assert [found.id for found in app.admin.find(conn=session)] == [job.id]
        assert app.job(job.id, conn=session).refresh().state == "available"
        with pytest.raises(JobNotFound):
            app.job(job.id)


def sessions(engine: Engine) -> Any:
    return Session(engine)


def scoped_sessions(engine: Engine) -> Any:
    return scoped_session(sessionmaker(engine))


def connections(engine: Engine) -> Any:
    return engine.connect()


@pytest.mark.parametrize("make", [sessions, scoped_sessions, connections])
def test_sqlalchemy_commits_and_rolls_back_jobs(
    send: Task[..., None], engine: Engine, query: Query, make: Callable[[Engine], Any]
) -> None:
    work = make(engine)
    send.using(work).enqueue(1)
    work.execute(sqlalchemy.text("SELECT 1"))
    send.using(work).enqueue_many([(2,), (3,)])
    assert query(COUNT) == [(0,)]
    work.rollback()
    assert query(COUNT) == [(0,)]
    send.using(work).enqueue(1)
    work.commit()
    assert query(COUNT) == [(1,)]
    work.close()


def test_sqlalchemys_nested_transaction_takes_its_jobs_with_it(
    send: Task[..., None], engine: Engine, query: Query
) -> None:
    with sessions(engine) as session, session.begin():
        send.using(session).enqueue(1)
        with session.begin_nested() as nested:
            send.using(session).enqueue(2)
            nested.rollback()
    assert query("SELECT args FROM qworker.job") == [({"n": 1},)]


def test_sqlalchemy_begins_blocks_that_only_enqueue(send: Task[..., None], engine: Engine, query: Query) -> None:
    with engine.begin() as conn:
        send.using(conn).enqueue(1)
    assert query(COUNT) == [(1,)]
    with engine.connect() as conn:
        send.using(conn).enqueue(2)
    assert query(COUNT) == [(1,)], "SQLAlchemy rolls back what nobody committed"


def test_an_engine_is_no_transaction(send: Task[..., None], engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"SQLAlchemy's sqlalchemy\.engine\.base\.Engine; pass engine\.connect"):
        send.using(engine).enqueue(1)


def test_another_driver_below_sqlalchemy_is_refused(send: Task[..., None]) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as conn, pytest.raises(TypeError, match=r"uses sqlite3 here.*postgresql\+psycopg://"):
        send.using(conn).enqueue(1)
    engine.dispose()


def test_a_streaming_query_of_the_same_session_may_be_the_source(
    send: Task[..., None], engine: Engine, query: Query
) -> None:
    with Session(engine) as session, session.begin():
        stream = session.connection().execution_options(yield_per=2)
        rows = stream.execute(sqlalchemy.text("SELECT generate_series(1, 30)"))
        nested = (tuple(session.execute(sqlalchemy.text("SELECT :n"), {"n": row[0]}).one()) for row in rows)
        assert send.using(session).enqueue_many(nested) == 30
    assert query(COUNT) == [(30,)]


# --- the same options, the same job


def test_all_options_are_stored_as_by_psycopg(app: App, work: Session, query: Query) -> None:
    @app.task(name="report", timeout=30)
    def report(*names: str, size: float = 1.5, nested: Any = None) -> None: ...

    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    options: dict[str, Any] = {
        "queue": "mails", "priority": 2, "timeout": 5, "retry": Retry(7), "tags": ["a", 'quo"te', "back\\slash", "é,→"],
        "run_at": later, "expires": later + timedelta(days=1),
    }  # fmt: skip
    arguments = ("é", "→ \U0001f600", "'%s' {x} \\ \"")
    named: dict[str, Any] = {"size": 1e300, "nested": {"a": [None, True, 2**40]}}
    expected = report.options(**options).enqueue(*arguments, **named)
    job = report.using(work).options(**options).enqueue(*arguments, **named)
    assert (job.state, job.run_at, job.args) == (JobState.SCHEDULED, later, expected.args)
    work.commit()
    assert job.refresh() == job
    stored = query(
        "SELECT queue, priority, task, args, overrides, tags, state, run_at, expires_at, holds_key FROM qworker.job"
    )
    assert stored == [stored[0]] * 2


def test_a_delay_and_an_expiry_in_seconds(send: Task[..., None], work: Session, query: Query) -> None:
    job = send.using(work).options(delay=60, expires=120).enqueue(1)
    work.commit()
    assert job.state == JobState.SCHEDULED
    assert query("SELECT extract(epoch FROM expires_at - run_at)::int FROM qworker.job") == [(60,)]


def test_a_unique_key_is_held_by_the_job_in_the_same_transaction(
    send: Task[..., None], work: Session, query: Query
) -> None:
    unique = send.using(work).options(unique=True, unique_for=60)
    first = unique.enqueue(1)
    again = unique.enqueue(1)
    assert (again.id, again.duplicate, again.args, first.duplicate) == (first.id, True, {"n": 1}, False)
    work.rollback()
    assert not unique.enqueue(1).duplicate
    work.commit()
    assert query(COUNT) == [(1,)]


def test_many_jobs_with_unique_keys(send: Task[..., None], work: Session, query: Query) -> None:
    unique = send.using(work).options(unique=True)
    assert unique.enqueue_many([(1,), (2,), (1,)]) == 2
    assert unique.enqueue_many([(2,), (3,)]) == 1
    work.rollback()
    assert query("SELECT count(*) FROM qworker.job") == [(0,)]


def test_many_jobs_with_ids_and_tags(send: Task[..., None], work: Session, query: Query) -> None:
    ids = send.using(work).options(tags=["x"], delay=5).enqueue_many([(n,) for n in range(700)], ids=True)
    assert len(set(ids)) == 700
    work.commit()
    assert query("SELECT count(*) FROM qworker.job WHERE tags = '{x}' AND state = 'scheduled'") == [(700,)]
    assert query("SELECT (args ->> 'n')::int FROM qworker.job WHERE id = %s", ids[699]) == [(699,)]


@pytest.mark.parametrize(
    ("row", "error"), [((), TypeError), ((float("nan"),), ValueError), (("x" * 300_000,), ValueError)]
)
def test_bad_rows_leave_the_transaction_usable(
    send: Task[..., None], work: Session, query: Query, row: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match="row 1"):
        send.using(work).enqueue_many([(1,), row])
    send.using(work).enqueue(2)
    work.commit()
    assert query("SELECT args FROM qworker.job") == [({"n": 2},)]


def test_no_rows_are_no_jobs(send: Task[..., None], work: Session) -> None:
    assert send.using(work).enqueue_many([]) == 0


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_isolation_levels(send: Task[..., None], engine: Engine, query: Query, level: Any) -> None:
    with engine.connect().execution_options(isolation_level=level) as conn:
        send.using(conn).enqueue(1)
        assert send.using(conn).enqueue_many([(2,), (3,)]) == 2
        assert query(COUNT) == [(3 if level == "AUTOCOMMIT" else 0,)]
        with pytest.raises(TypeError, match="row 0"):
            send.using(conn).enqueue_many([()])
        conn.commit()
    assert query(COUNT) == [(3,)]


# --- what can be done to the job


def test_the_job_belongs_to_the_open_transaction(
    send: Task[..., None], work: Session, app: App, query: Query, fake_worker: FakeWorker
) -> None:
    job = send.using(work).enqueue(1)
    assert job.refresh() == job
    with pytest.raises(InvalidOperation, match="inside the transaction that enqueued it"):
        job.wait(1)
    assert job.cancel()
    assert job.refresh().state == JobState.CANCELLED
    work.rollback()
    job = send.using(work).enqueue(2)
    work.commit()
    assert job.cancel()
    assert app.job(job.id).state == JobState.CANCELLED


def test_a_job_does_not_join_a_later_transaction_on_the_same_connection(
    send: Task[..., None], engine: Engine, query: Query
) -> None:
    """The pool has given the connection to somebody else."""
    with Session(engine) as session:
        job = send.using(session).enqueue(1)
        session.commit()
    with Session(engine) as other:
        send.using(other).enqueue(2)
        assert job.cancel()
        assert query("SELECT state::text FROM qworker.jobs") == [("cancelled",)]
        other.rollback()
    assert job.refresh().state == JobState.CANCELLED


# --- the same errors


def test_an_unmigrated_database_is_reported(empty_database: Database) -> None:
    task = App(empty_database.dsn).task(name="t")(print)
    for driver in DRIVERS:
        engine = sqlalchemy.create_engine(url(empty_database.dsn, driver))
        with engine.connect() as conn, pytest.raises(SchemaError, match=r"is missing or older.*qworker db migrate"):
            task.using(conn).enqueue()
        engine.dispose()


def test_a_trigger_that_suppresses_jobs_is_reported(send: Task[..., None], work: Session) -> None:
    work.execute(
        sqlalchemy.text("CREATE FUNCTION pg_temp.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    )
    work.execute(
        sqlalchemy.text("CREATE TRIGGER no BEFORE INSERT ON qworker.job FOR EACH ROW EXECUTE FUNCTION pg_temp.no()")
    )
    with pytest.raises(InvalidOperation, match=r"a BEFORE INSERT trigger or a rule on the table job suppressed"):
        send.using(work).enqueue(1)
    work.rollback()


def test_an_error_shows_no_values(send: Task[..., None], work: Session) -> None:
    secret = secrets.token_hex(8)
    work.execute(sqlalchemy.text("ALTER TABLE qworker.job ADD CONSTRAINT no_secrets CHECK (task = '')"))
    with pytest.raises(Exception, match="no_secrets") as raised:
        send.using(work).enqueue(secret)
    work.rollback()
    shown: BaseException | None = raised.value
    assert not isinstance(shown, QworkerError)
    assert "23514" in (getattr(shown, "pgcode", None), getattr(shown, "sqlstate", None)) or "23514" in str(shown)
    while shown is not None:
        assert secret not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_a_failed_transaction_takes_no_jobs(send: Task[..., None], work: Session, query: Query) -> None:
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        work.execute(sqlalchemy.text("SELECT 1/0"))
    with pytest.raises(Exception, match="current transaction is aborted"):
        send.using(work).enqueue(1)
    work.rollback()
    assert query(COUNT) == [(0,)]


# --- connections of drivers


@pytest.mark.parametrize("options", [{}, {"cursor_factory": psycopg2.extras.RealDictCursor}])
def test_a_plain_connection_of_psycopg2(
    send: Task[..., None], database: Database, query: Query, options: dict[str, Any]
) -> None:
    conn = psycopg2.connect(database.dsn, **options)
    conn.set_client_encoding("LATIN1")
    job = send.using(conn).options(tags=["é"]).enqueue("→")
    assert query(COUNT) == [(0,)]
    conn.commit()
    assert job.refresh().args == {"n": "→"}
    assert job.refresh().tags == ("é",)
    conn.close()
    assert job.refresh().state == JobState.AVAILABLE


def test_a_plain_connection_of_pg8000(send: Task[..., None], database: Database, query: Query) -> None:
    at = url(database.dsn, "pg8000")
    conn = pg8000.dbapi.connect(at.username, at.host, at.database, at.port, at.password)
    job = send.using(conn).enqueue("→")
    assert query(COUNT) == [(0,)]
    conn.commit()
    assert job.refresh().args == {"n": "→"}
    conn.close()
    assert job.refresh().state == JobState.AVAILABLE


def test_a_producer_may_enqueue_and_sees_nothing_else(
    send: Task[..., None], engine: Engine, database: Database
) -> None:
    with database.connect() as conn:
        conn.execute("DROP ROLE IF EXISTS shop_producer")
        conn.execute("CREATE ROLE shop_producer")
        conn.execute("GRANT USAGE ON SCHEMA qworker TO shop_producer")
        conn.execute("GRANT EXECUTE ON FUNCTION qworker.enqueue_jobs TO shop_producer")
    try:
        with engine.begin() as work:
            work.execute(sqlalchemy.text("SET LOCAL ROLE shop_producer"))
            first = send.using(work).options(unique="k").enqueue(1)
            again = send.using(work).options(unique="k").enqueue(1)
            assert (again.id, again.duplicate, again.state) == (first.id, True, JobState.AVAILABLE)
    finally:
        with database.connect() as conn:
            conn.execute("DROP OWNED BY shop_producer")
            conn.execute("DROP ROLE shop_producer")
