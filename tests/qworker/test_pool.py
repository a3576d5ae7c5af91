"""The application's own connections."""

import gc
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker import App, ConfigurationError, DatabaseUnavailable, Task
from qworker.db import pool as pool_module
from qworker.db.deadline import DeadlineConnection
from qworker.db.pool import Pool
from tests.database import Database
from tests.lifecycle.proxy import Proxy
from tests.qworker.conftest import Query
from tests.waiting import until

MINE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qworker client'"
)


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(who: str) -> None: ...

    return send


def in_child(work: Callable[[], object]) -> int:
    """Run work in a forked child and return its exit status; 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - it must not come back into the parent's tests
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def senders(query: Query) -> list[str]:
    return [who for (who,) in query("SELECT args ->> 'who' FROM qworker.job ORDER BY id")]


def test_nothing_connects_before_the_first_job(send: Task[..., None], query: Query) -> None:
    assert query(MINE) == [(0,)]
    send.enqueue("me")
    assert query(MINE) == [(1,)]


def test_parent_and_children_each_have_their_own_after_a_fork(send: Task[..., None], query: Query) -> None:
    send.enqueue("parent")
    assert in_child(lambda: send.enqueue("child")) == 0
    send.enqueue("parent again")
    assert in_child(lambda: [in_child(lambda: send.enqueue("grandchild")), send.enqueue("second child")]) == 0
    send.enqueue("parent at last")
    assert senders(query) == ["parent", "child", "parent again", "grandchild", "second child", "parent at last"]


def test_a_child_that_ends_properly_leaves_its_parents_connection_alone(
    send: Task[..., None], app: App, query: Query
) -> None:
    send.enqueue("parent")

    def child() -> None:
        app.close()
        gc.collect()

    assert in_child(child) == 0
    with app.pool.connection() as conn:
        assert in_child(lambda: app.pool.putconn(conn)) == 0
        conn.execute("SELECT 1")
    send.enqueue("parent")
    assert query(MINE) == [(1,)]


def test_a_fork_while_another_thread_uses_the_pool_does_not_hang_the_child(
    send: Task[..., None], app: App, query: Query
) -> None:
    busy, done = threading.Event(), threading.Event()

    def hold() -> None:
        with app.pool.connection() as conn, pool_lock(app):
            conn.execute("SELECT 1")
            busy.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert busy.wait(60)
    try:
        assert in_child(lambda: send.enqueue("child")) == 0
    finally:
        done.set()
        thread.join()
    assert senders(query) == ["child"]


def pool_lock(app: App) -> Any:
    return app.pool._per_process[os.getpid()]._changed


def test_threads_share_few_connections(database: Database, query: Query) -> None:
    pool = Pool(database.dsn, size=3)
    app = App(database.dsn)
    app.pool = pool

    def work(_: int) -> None:
        with pool.connection() as conn:
            conn.execute("SELECT pg_sleep(0.005)")

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(120)))
    assert query(MINE)[0][0] <= 3
    assert len(pool._per_process[os.getpid()].owned) <= 3
    pool.close()
    until(lambda: query(MINE) == [(0,)])


def test_a_pool_that_stays_busy_says_so(database: Database) -> None:
    pool = Pool(database.dsn, size=1, wait_timeout=0.05)
    with pool.connection(), pytest.raises(DatabaseUnavailable, match=r"all 1 connections have been busy for 0\.05 s"):
        pool.getconn()
    with pool.connection() as conn:
        conn.execute("SELECT 1")
    pool.close()


def test_a_server_that_hung_up_in_between_is_not_noticed(send: Task[..., None], query: Query) -> None:
    send.enqueue("before")
    query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'qworker client'")
    send.enqueue("after")
    assert senders(query) == ["before", "after"]


def test_a_server_that_hangs_up_meanwhile_is_reported_and_got_over(app: App, query: Query) -> None:
    def work() -> None:
        with app.pool.connection() as conn:
            query("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
            conn.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match=r"the database closed the connection: .*terminating connection"):
        work()
    with app.pool.connection() as conn:
        conn.execute("SELECT 1")
    assert len(app.pool._per_process[os.getpid()].owned) == 1


def test_a_connection_left_in_a_transaction_is_not_used_again(app: App) -> None:
    with app.pool.connection() as conn:
        conn.execute("BEGIN")
    with app.pool.connection() as other:
        assert other is not conn
    assert conn.closed


def test_an_interrupted_statement_costs_its_connection_only(app: App) -> None:
    class Stop(BaseException):
        pass

    used = []

    def work() -> None:
        with app.pool.connection() as conn:
            used.append(conn)
            conn.pgconn.send_query(b"SELECT pg_sleep(60)")
            raise Stop

    with pytest.raises(Stop):
        work()
    assert used[0].closed
    with app.pool.connection() as other:
        other.execute("SELECT 1")


def test_connections_that_nobody_needs_are_closed(app: App, monkeypatch: pytest.MonkeyPatch, query: Query) -> None:
    with app.pool.connection(), app.pool.connection():
        pass
    assert query(MINE) == [(2,)]
    monkeypatch.setattr(pool_module, "MAX_IDLE", -1.0)
    with app.pool.connection():
        pass
    until(lambda: query(MINE) == [(1,)])


def test_an_app_that_is_forgotten_closes_its_connections(database: Database, query: Query) -> None:
    app = App(database.dsn)
    with app.pool.connection():
        pass
    del app
    gc.collect()
    until(lambda: query(MINE) == [(0,)])


def test_a_server_that_is_away_is_reported_at_once_without_the_password(database: Database) -> None:
    gone = make_conninfo(database.dsn, port=1, password="hush")
    app = App(gone)
    task: Task[[], None] = app.task(name="t")(lambda: None)
    for use in (task.enqueue, lambda: task.enqueue_many([()]), lambda: app.job(1), lambda: app.queue("q").size()):
        with pytest.raises(DatabaseUnavailable, match=r"no connection to the database .*port=1.*refused") as caught:
            use()
        assert "hush" not in str(caught.value)
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_a_wrong_password_is_reported_at_once(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="password authentication failed"):
        Pool(make_conninfo(database.dsn, password="wrong")).getconn()


def test_without_a_dsn_the_message_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    with pytest.raises(DatabaseUnavailable, match=r"of libpq's PG\* variables \(\$QWORKER_DSN is not set\)"):
        Pool().getconn()


def test_an_unreadable_dsn_does_not_use_the_pool_up() -> None:
    pool = Pool("this is = no dsn", size=1, wait_timeout=0)
    for _ in range(3):
        with pytest.raises(ConfigurationError):
            pool.getconn()


def test_a_callable_is_asked_at_each_connect(database: Database) -> None:
    asked = []

    def dsn() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError("no secret yet")
        return database.dsn

    app = App(dsn)
    with pytest.raises(RuntimeError, match="no secret yet"):
        app.pool.getconn()
    with app.pool.connection(), app.pool.connection():
        pass
    with app.pool.connection():
        pass
    assert len(asked) == 3
    app.close()


def test_addresses_are_taken_from_the_environment_in_the_stated_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(app: App) -> str:
        with app.pool.connection() as conn:
            found = conn.info.dbname
        app.close()
        return found

    ours = conninfo_to_dict(database.dsn)["dbname"]
    postgres = make_conninfo(database.dsn, dbname="postgres")
    monkeypatch.setenv("DATABASE_URL", postgres)
    assert name(App()) == "postgres"
    monkeypatch.setenv("QWORKER_DSN", database.dsn)
    assert name(App()) == ours
    assert name(App(postgres)) == "postgres"


def test_when_no_answer_comes_on_one_connection_the_others_are_not_tried(database: Database) -> None:
    """A proxy has lost its server: each of them would wait for as long."""
    with Proxy(database.dsn) as proxy:
        pool = Pool(proxy.dsn)
        both = [pool.getconn(), pool.getconn()]
        for conn in both:
            assert isinstance(conn, DeadlineConnection)
            conn.answer_timeout = 0.2
            pool.putconn(conn)
        proxy.forget()
        with pytest.raises(DatabaseUnavailable, match=r"no answer for 0\.2 s"), pool.connection() as conn:
            conn.execute("SELECT 1")
        with pool.connection() as conn:
            assert conn not in both
            assert conn.execute("SELECT 1").fetchone() == (1,)
        pool.close()
