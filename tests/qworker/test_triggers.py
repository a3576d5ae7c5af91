"""Triggers that others have put on the table of jobs: what they refuse or suppress is an error."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from qworker import App, InvalidOperation, Task
from qworker.claims import Claims
from qworker.db.connection import connect

Postgres = psycopg.Connection[Any]

_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the quota is used up' USING ERRCODE = 'check_violation'; END $$;
"""
_SUPPRESS = """
CREATE TABLE seen (task text);
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.seen VALUES (NEW.task); RETURN NULL; END $$;
CREATE TRIGGER suppress BEFORE INSERT ON qworker.job FOR EACH ROW EXECUTE FUNCTION suppress();
"""
_DEFERRED = "CREATE CONSTRAINT TRIGGER quota AFTER {} ON qworker.{} DEFERRABLE INITIALLY DEFERRED "
_ROW = "FOR EACH ROW EXECUTE FUNCTION refuse()"


def defer(conn: Postgres, event: str, table: str = "job") -> None:
    conn.execute(_REFUSE + _DEFERRED.format(event, table) + _ROW)


def dsn_of(conn: Postgres) -> str:
    return f"{conn.info.dsn} password={conn.info.password}"


@pytest.fixture
def admin(postgresql: Postgres) -> Postgres:
    postgresql.autocommit = True
    return postgresql


@pytest.fixture
def task(admin: Postgres) -> Task[..., None]:
    app = App(dsn_of(admin))

    @app.task(name="count")
    def count(n: int) -> None: ...

    return count


WAYS: dict[str, Callable[[Any], object]] = {
    "one": lambda task: task.enqueue(1),
    "delayed": lambda task: task.options(delay=5).enqueue(1),
    "tagged": lambda task: task.options(tags=["a"]).enqueue(1),
    "unique": lambda task: task.options(unique=True).enqueue(1),
    "unique_for": lambda task: task.options(unique_for=60).enqueue(1),
    "many": lambda task: task.enqueue_many([(1,), (2,)]),
    "ids": lambda task: task.enqueue_many([(1,), (2,)], ids=True),
}
ways = pytest.mark.parametrize("way", list(WAYS))


@ways
def test_an_error_that_comes_with_the_commit_is_raised_and_nothing_is_stored(
    admin: Postgres, task: Task[..., None], way: str
) -> None:
    defer(admin, "INSERT")
    with pytest.raises(psycopg.errors.CheckViolation, match="the quota is used up"):
        WAYS[way](task)
    admin.execute("DROP TRIGGER quota ON qworker.job")
    assert admin.execute("SELECT count(*) FROM qworker.job").fetchone() == (0,)
    assert WAYS[way](task), "the connection is as good as before"


@ways
@pytest.mark.parametrize("joined", [False, True])
def test_a_suppressed_job_is_an_error_and_leaves_no_key(
    admin: Postgres, task: Task[..., None], way: str, joined: bool
) -> None:
    admin.execute(_SUPPRESS)
    with pytest.raises(InvalidOperation, match=r"did not store .* of task 'count'"):
        WAYS[way](task.using(admin) if joined else task)
    assert admin.execute("SELECT count(*) FROM qworker.unique_key").fetchone() == (0,)


def test_a_suppressed_job_is_an_error_of_the_sql_function(admin: Postgres) -> None:
    admin.execute(_SUPPRESS)
    with pytest.raises(psycopg.errors.RaiseException, match="suppressed the job of task mail"):
        admin.execute("SELECT qworker.enqueue('mail')")


def test_some_rows_suppressed_undo_the_whole_bulk(admin: Postgres, task: Task[..., None]) -> None:
    admin.execute(_SUPPRESS.replace("FOR EACH ROW", "FOR EACH ROW WHEN (NEW.args ->> 'n' = '7')"))
    with pytest.raises(InvalidOperation, match="did not store a job of"):
        task.enqueue_many((n,) for n in range(20))
    assert admin.execute("SELECT count(*) FROM qworker.job").fetchone() == (0,)
    assert task.enqueue_many((n,) for n in range(5)) == 5


def test_a_refused_job_is_sent_once(admin: Postgres, task: Task[..., None]) -> None:
    """A second try would fire triggers again, and wait for each lock twice as long."""
    admin.execute(
        "CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM nextval('public.tries'); RAISE EXCEPTION 'no'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON qworker.job FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(psycopg.errors.RaiseException, match=r"^no"):
        task.enqueue(1)
    assert admin.execute("SELECT last_value, is_called FROM tries").fetchone() == (1, True)


def test_a_claim_and_an_acknowledgement_report_what_their_commit_refuses(
    admin: Postgres, task: Task[..., None]
) -> None:
    job = task.enqueue(1)
    claims, conn = Claims(), connect(dsn_of(admin), "test")

    def claim() -> Sequence[tuple[Any, ...]]:
        return claims.claim(conn, node=1, token=1, queues=["default"], priorities=[5], cursors=[0], limit=1)

    with conn:
        defer(admin, "UPDATE")
        with pytest.raises(psycopg.errors.CheckViolation):
            claim()
        admin.execute("DROP TRIGGER quota ON qworker.job; DROP FUNCTION refuse")
        assert [row[0] for row in claim()] == [job.id]
        defer(admin, "DELETE")
        with pytest.raises(psycopg.errors.CheckViolation):
            claims.acknowledge(conn, 1, [job.id])
        admin.execute("DROP TRIGGER quota ON qworker.job")
        assert claims.acknowledge(conn, 1, [job.id]) == [job.id]


def test_an_operator_that_does_not_exist_is_not_a_missing_schema(admin: Postgres, task: Task[..., None]) -> None:
    admin.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 = '{1}'::smallint[]; END $$;"
        " CREATE TRIGGER broken BEFORE INSERT ON qworker.job FOR EACH ROW EXECUTE FUNCTION broken()"
    )
    with pytest.raises(psycopg.errors.UndefinedFunction, match="operator does not exist"):
        task.enqueue(1)


def test_what_a_trigger_lacks_is_not_a_missing_schema(admin: Postgres, task: Task[..., None]) -> None:
    admin.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 FROM nowhere; END $$;"
        " CREATE TRIGGER broken BEFORE INSERT ON qworker.job FOR EACH ROW EXECUTE FUNCTION broken()"
    )
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        task.enqueue(1)
