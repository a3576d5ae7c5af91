"""The connection that handlers are lent: one after the other uses it, and each finds it as if it were new."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.shared.slots import Role
from qworkerd.worker.job_connection import ClaimLost, JobConnection
from qworkerd.worker.session import TransactionEnded
from tests.database import Database
from tests.lifecycle.proxy import Proxy


@pytest.fixture
def lending(database: Database) -> Iterator[JobConnection]:
    node = make_node(App(), Settings(dsn=database.dsn, processes=1))
    node.table.slots[0].assign(Role.WORKER, 1, inf, 0.0)
    lending = JobConnection(node, node.table.slots[0])
    yield lending
    lending.close()


def test_what_one_job_sets_does_not_concern_the_next(lending: JobConnection) -> None:
    """With autocommit still on, nothing that the next one does would be rolled back when it raises."""
    first = lending.open()
    first.autocommit = True
    first.row_factory = dict_row
    assert lending.finish(first, commit=True) is None
    second = lending.open()
    assert second is first
    assert not second.autocommit
    assert second.execute("SELECT 1").fetchone() == (1,)
    assert lending.finish(second, commit=True) is None


STATE = """
SELECT current_user::text, session_user::text, current_setting('search_path'),
       nullif(current_setting('app.tenant', true), ''),
       current_setting('work_mem'), to_regclass('pg_temp.mine')::text, current_setting('transaction_isolation'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
       (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), current_setting('transaction_read_only')
"""
LEFT = {
    "role": "SET ROLE pg_monitor",
    "session authorization": "SET SESSION AUTHORIZATION pg_monitor",
    "search_path": "SET search_path = pg_temp, public",
    "tenant": "SELECT set_config('app.tenant', 'acme', false)",
    "setting": "SET work_mem = '1MB'",
    "short timeout": "SET statement_timeout = '1ms'",
    "temporary table": "CREATE TEMPORARY TABLE mine (n int)",
    "advisory lock": "SELECT pg_advisory_lock(7)",
    "LISTEN": "LISTEN elsewhere",
    "cursor WITH HOLD": "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "PREPARE": 'PREPARE "My plan" AS SELECT 1',
}


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("left", LEFT)
def test_what_one_job_leaves_in_the_session_is_gone_for_the_next(
    lending: JobConnection, left: str, commit: bool
) -> None:
    connection = lending.open()
    before = connection.execute(STATE).fetchone()
    assert lending.finish(connection, commit=True) is None
    connection = lending.open()
    if not commit:
        connection.autocommit = True  # what was committed is not undone by a rollback
    connection.execute(LEFT[left])
    assert lending.finish(connection, commit=commit) is None
    assert lending.open().execute(STATE).fetchone() == before


def test_what_one_job_makes_of_the_connection_object_is_gone_for_the_next(lending: JobConnection) -> None:
    connection = lending.open()
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.SERIALIZABLE, True
    connection.cursor_factory, connection.row_factory = psycopg.ClientCursor, dict_row
    assert lending.finish(connection, commit=True) is None
    connection = lending.open()
    assert (connection.isolation_level, connection.read_only, connection.cursor_factory) == (None, None, psycopg.Cursor)
    assert lending.finish(connection, commit=True) is None


class Spoiling(Loader):
    def load(self, data: Any) -> str:  # noqa: ARG002
        return "spoiled"


CALLED: list[object] = []
#: What a handler may set on the object, or register with it.
REGISTERED: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
    "JSON loader": lambda connection: set_json_loads(lambda _: "spoiled", connection),
    "loader": lambda connection: connection.adapters.register_loader("int4", Spoiling),
    "notice handler": lambda connection: connection.add_notice_handler(CALLED.append),
    "notification handler": lambda connection: connection.add_notify_handler(CALLED.append),
    "no prepared statements": lambda connection: setattr(connection, "prepare_threshold", None),
    "few prepared statements": lambda connection: setattr(connection, "prepared_max", 1),
    "attribute": lambda connection: setattr(connection, "tenant", "acme"),
    "method": lambda connection: setattr(connection, "commit", lambda: CALLED.append("commit")),
    "answer timeout": lambda connection: setattr(connection, "answer_timeout", 1e-6),
}


@pytest.mark.parametrize("begin", ["open", "open_transaction"])
@pytest.mark.parametrize("registered", REGISTERED)
def test_what_one_job_registers_with_the_connection_is_gone_for_the_next(
    lending: JobConnection, registered: str, begin: str
) -> None:
    CALLED.clear()
    connection = getattr(lending, begin)()
    before = connection.prepare_threshold, connection.prepared_max
    connection.execute("INSERT INTO qworker.queue VALUES ('done')")
    REGISTERED[registered](connection)
    assert lending.finish(connection, commit=True, before_commit=lambda: True) is None
    again = lending.open()
    assert again is connection
    assert (again.prepare_threshold, again.prepared_max) == before
    assert not hasattr(again, "tenant")
    assert again.execute("SELECT count(*)::int, '{}'::jsonb FROM qworker.queue").fetchone() == (1, {})
    again.execute("LISTEN here; NOTIFY here; DO $$ BEGIN RAISE NOTICE 'here'; END $$")
    again.commit()
    again.execute("SELECT 1")
    assert not CALLED
    assert lending.finish(again, commit=True) is None


def test_a_session_that_began_read_only_does_not_outlive_the_job_that_has_failed_by_it(
    lending: JobConnection, database: Database
) -> None:
    with database.connect() as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        try:
            connection = lending.open()
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO qworker.queue VALUES ('done')")
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    # The pool connects anew as soon as the session is returned: the new one must be writable.
    assert lending.finish(connection, commit=False) is None
    connection = lending.open()
    connection.execute("INSERT INTO qworker.queue VALUES ('done')")
    assert lending.finish(connection, commit=True) is None


def test_what_psycopg_has_prepared_goes_on(lending: JobConnection) -> None:
    for _ in range(20):
        connection = lending.open()
        assert connection.execute("SELECT %s::int", (7,)).fetchone() == (7,)
        assert lending.finish(connection, commit=True) is None
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int%'"
    assert lending.open().execute(prepared).fetchone() == (1,)


@pytest.mark.parametrize("role", ["SET LOCAL ROLE pg_monitor", "SET LOCAL SESSION AUTHORIZATION pg_monitor"])
def test_the_end_of_a_transactional_job_is_written_under_the_workers_own_role(
    lending: JobConnection, role: str
) -> None:
    connection = lending.open_transaction()
    connection.execute(role)
    seen: list[object] = []

    def last() -> bool:
        seen.extend(connection.execute("SELECT current_user = 'pg_monitor', session_user = 'pg_monitor'").fetchall())
        return True

    assert lending.finish(connection, commit=True, before_commit=last) is None
    assert seen == [(False, False)]


def test_a_transactional_handler_may_choose_its_isolation_level(lending: JobConnection) -> None:
    connection = lending.open_transaction()
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
    assert lending.finish(connection, commit=True, before_commit=lambda: True) is None


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("commit", [True, False])
def test_a_transactional_handler_that_ends_its_transaction_itself_is_found_out(
    lending: JobConnection, end: str, again: bool, commit: bool
) -> None:
    connection = lending.open_transaction()
    psycopg.Cursor(connection).execute(end)
    if again:
        connection.execute("SELECT 1")
    error = lending.finish(
        connection, commit=commit, before_commit=lambda: pytest.fail("the end of the job was written")
    )
    assert isinstance(error, TransactionEnded)
    assert lending.open().execute("SELECT 1").fetchone() == (1,)


def test_commit_raises_where_it_is_sent_and_savepoints_go_on(lending: JobConnection) -> None:
    connection = lending.open_transaction()
    connection.execute("SAVEPOINT s")
    connection.execute("ROLLBACK TO s")
    with pytest.raises(TransactionEnded):
        connection.execute("commit")
    assert isinstance(lending.finish(connection, commit=True, before_commit=lambda: True), TransactionEnded)


def test_a_transaction_that_ends_with_the_job_is_not_the_handlers_to_end(lending: JobConnection) -> None:
    connection = lending.open_transaction()
    connection.execute("CREATE TABLE seen (n int)")
    for end in (connection.commit, connection.rollback):
        with pytest.raises(psycopg.ProgrammingError):
            end()
    with suppress(ValueError), connection.transaction():
        connection.execute("INSERT INTO seen VALUES (1)")
        raise ValueError
    assert lending.finish(connection, commit=True, before_commit=lambda: True) is None
    again = lending.open()
    assert again.execute("SELECT count(*) FROM seen").fetchone() == (0,)
    again.execute("DROP TABLE seen")
    assert lending.finish(again, commit=True) is None


@pytest.mark.parametrize("begin", ["open_transaction", "open"])
def test_what_cannot_be_committed_is_reported_and_the_connection_goes_on(lending: JobConnection, begin: str) -> None:
    """The server answers COMMIT with a rollback where a statement has failed before, and the driver says nothing."""
    connection = getattr(lending, begin)()
    with suppress(psycopg.Error):
        connection.execute("SELECT 1/0")
    assert isinstance(lending.finish(connection, commit=True), psycopg.errors.InFailedSqlTransaction)
    connection = getattr(lending, begin)()
    assert isinstance(lending.finish(connection, commit=True, before_commit=lambda: False), ClaimLost)
    assert lending.lost is None
    assert lending.open().execute("SELECT 1").fetchone() == (1,)


def test_a_session_that_was_lost_in_the_commit_is_named(lending: JobConnection, database: Database) -> None:
    connection = lending.open_transaction()
    pid = connection.info.backend_pid

    def last() -> bool:
        database.connect().execute("SELECT pg_terminate_backend(%s)", (pid,))
        return True

    assert isinstance(lending.finish(connection, commit=True, before_commit=last), psycopg.OperationalError)
    assert lending.lost is not None
    assert lending.lost.pid == pid
    connection = lending.open_transaction()
    assert connection.info.backend_pid != pid
    assert lending.finish(connection, commit=True) is None
    assert lending.lost is None


@pytest.mark.parametrize("commit", [True, False])
def test_nobody_waits_for_ever_for_a_commit_or_a_rollback(
    database: Database, monkeypatch: pytest.MonkeyPatch, commit: bool
) -> None:
    """A proxy has lost the server: what a commit has done is then for others to find out."""
    monkeypatch.setattr("qworkerd.worker.job_connection.COMMIT_TIMEOUT", 0.3)
    monkeypatch.setattr("qworkerd.worker.job_connection.ROLLBACK_TIMEOUT", 0.3)
    with Proxy(database.dsn) as proxy:
        node = make_node(App(), Settings(dsn=proxy.dsn, processes=1))
        node.table.slots[0].assign(Role.WORKER, 1, inf, 0.0)
        lending = JobConnection(node, node.table.slots[0])
        connection = lending.open_transaction()
        connection.execute("CREATE TEMPORARY TABLE seen (n int)")
        proxy.forget()
        error = lending.finish(connection, commit=commit, before_commit=lambda: True)
        assert connection.closed
        if commit:
            assert "no answer for 0.3 s" in str(error)
            assert lending.lost is not None
        else:
            assert error is None
        lending.close()


@pytest.fixture
def table(database: Database) -> Iterator[None]:
    conn = database.connect()
    conn.execute("CREATE TABLE public.work (n int)")
    yield
    conn.execute("DROP TABLE public.work")


@pytest.mark.usefixtures("table")
def test_a_handler_may_commit_and_close_the_connection_itself(lending: JobConnection) -> None:
    """An error would repeat work that is committed."""
    connection = lending.open()
    connection.execute("INSERT INTO public.work VALUES (1)")
    connection.commit()
    connection.close()
    assert lending.finish(connection, commit=True) is None
    assert lending.lost is None
    assert lending.open().execute("SELECT n FROM public.work").fetchall() == [(1,)]


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.usefixtures("table")
def test_a_handler_that_closes_the_connection_in_its_transaction_has_failed_for_sure(
    lending: JobConnection, transactional: bool
) -> None:
    connection = lending.open_transaction() if transactional else lending.open()
    connection.execute("INSERT INTO public.work VALUES (1)")
    connection.close()
    error = lending.finish(connection, commit=True, before_commit=lambda: True)
    assert "closed current_job.connection" in str(error)
    assert lending.lost is None, "there is no doubt about its commit"
    assert lending.open().execute("SELECT n FROM public.work").fetchall() == []


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.usefixtures("table")
def test_nobody_waits_for_a_copy_that_a_handler_has_left_half_done(
    lending: JobConnection, transactional: bool, commit: bool
) -> None:
    connection = lending.open_transaction() if transactional else lending.open()
    copy = connection.cursor().copy("COPY public.work FROM STDIN")
    copy.__enter__().write("1\n")
    begun = monotonic()
    error = lending.finish(connection, commit=commit, before_commit=lambda: True)
    assert monotonic() - begun < 5
    assert ("in the middle of a COPY" in str(error)) is commit
    with suppress(psycopg.Error):
        copy.__exit__(None, None, None)  # here, and not where the collector finds it
    assert lending.open().execute("SELECT n FROM public.work").fetchall() == []


@pytest.mark.usefixtures("table")
def test_a_thread_that_a_handler_leaves_behind_has_no_part_in_the_next_job(lending: JobConnection) -> None:
    """It would write in the transactions of a job that knows nothing of it, and see what that one sees."""
    go, errors = threading.Event(), []
    first = lending.open()

    def run() -> None:
        go.wait()
        try:
            first.execute("INSERT INTO public.work VALUES (1)")
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert lending.finish(first, commit=True) is None
    second = lending.open()
    go.set()
    thread.join()
    assert len(errors) == 1
    assert lending.finish(second, commit=True) is None
    assert lending.open().execute("SELECT n FROM public.work").fetchall() == []
