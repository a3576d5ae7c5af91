"""Enqueueing many jobs at once."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from qworker import App, InvalidOperation, PayloadTooLarge, Retry, Task
from qworker.bulk import MAX_BLOCK_ROWS
from qworker.copy_lines import MAX_MESSAGE
from qworker.payload import MAX_ARGS
from tests.database import Database
from tests.qworker.conftest import Query

COUNT = "SELECT count(*) FROM qworker.job"


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send", queue="emails")
    def send(user_id: object, text: str = "hi") -> None: ...

    return send


def test_rows_are_positional_or_named_arguments(send: Task[..., None], query: Query) -> None:
    assert send.enqueue_many([(1,), [2, "x"], {"user_id": 3}]) == 3
    assert query("SELECT args, queue, task, priority, state::text, holds_key FROM qworker.job ORDER BY seq") == [
        ({"user_id": 1}, "emails", "send", 5, "available", False),
        ({"user_id": 2, "text": "x"}, "emails", "send", 5, "available", False),
        ({"user_id": 3}, "emails", "send", 5, "available", False),
    ]


def test_no_rows_are_no_jobs(send: Task[..., None]) -> None:
    assert send.enqueue_many([]) == 0
    assert send.enqueue_many(iter(()), ids=True) == []


@pytest.mark.parametrize("own", [True, False])
def test_a_sleeping_node_is_woken_by_jobs_and_not_by_none(send: Task[..., None], database: Database, own: bool) -> None:
    ear = database.connect()
    ear.execute(
        "INSERT INTO qworker.node (id, lease_seconds, worker_count, name, version, queues)"
        " VALUES (1, 9, 1, 'n', '1', '{}')"
    )
    ear.execute("INSERT INTO qworker.idle_node VALUES (1, ARRAY['emails'])")
    ear.execute("LISTEN qworker")
    task = send if own else send.using(database.connect())
    task.enqueue_many([])
    task.options(delay=60).enqueue_many([(1,)])
    assert list(ear.notifies(timeout=0.2)) == []
    task.enqueue_many([(1,), (2,)])
    assert [note.payload for note in ear.notifies(timeout=5, stop_after=1)] == ["emails"]


def test_ids_are_those_of_the_rows_in_their_order(send: Task[..., None], query: Query) -> None:
    rows = ((n,) for n in range(MAX_BLOCK_ROWS + 5))
    ids = send.enqueue_many(rows, ids=True)
    assert ids == sorted(ids)
    assert query("SELECT id, (args ->> 'user_id')::int FROM qworker.job ORDER BY id") == [
        (id_, n) for n, id_ in enumerate(ids)
    ]


@pytest.mark.parametrize(
    "value",
    [
        "tab\tnewline\nreturn\rbackslash\\",
        "\\N",
        "\\.",
        '{"a"}',
        "'quote\"",
        "\u2028🎉",
        "\\u0000",
        1e300,
        [[]],
        {"a\tb": 1},
    ],
)
@pytest.mark.parametrize("ids", [False, True])
def test_values_come_back_as_they_were(send: Task[..., None], query: Query, value: Any, ids: bool) -> None:
    send.enqueue_many([(value,)], ids=ids)  # type: ignore[call-overload]
    ((args,),) = query("SELECT args FROM qworker.job")
    assert args == {"user_id": value}


def test_options_apply_to_every_job(app: App, query: Query) -> None:
    @app.task(name="back\\slash\\t")
    def plain() -> None: ...

    expires = datetime(2040, 1, 1, tzinfo=UTC)
    tags = ["a b", 'c"\\', "{}", "NULL", "ü"]
    task = plain.options(queue="q\\n", priority=0, tags=tags, retry=Retry(2, never_on="a.b"), expires=expires)
    task.enqueue_many([(), {}])
    rows = query("SELECT task, queue, priority, tags, overrides -> 'retry' ->> 'attempts', expires_at FROM qworker.job")
    assert rows == [("back\\slash\\t", "q\\n", 0, tags, "2", expires)] * 2


def test_delayed_jobs_are_scheduled_by_the_databases_clock(send: Task[..., None], query: Query) -> None:
    send.options(delay=60, expires=90).enqueue_many([(1,), (2,)])
    times = (
        "SELECT state::text, extract(epoch FROM run_at - clock_timestamp()) BETWEEN 50 AND 60,"
        " extract(epoch FROM expires_at - run_at)::float FROM qworker.job"
    )
    assert query(times) == [("scheduled", True, 30.0)] * 2
    send.options(run_at=datetime(2020, 1, 1, tzinfo=UTC)).enqueue_many([(3,)])
    assert query("SELECT state::text, run_at FROM qworker.job WHERE args ->> 'user_id' = '3'") == [("available", None)]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ((), TypeError, "row 700: send(user_id: object, text: str = 'hi') -> None: missing a required argument"),
        ((1, 2, 3), TypeError, "row 700: send(user_id: object, text: str = 'hi') -> None: too many positional"),
        ({"nobody": 1}, TypeError, "row 700: "),
        (({1},), TypeError, "row 700: args.user_id: set is not JSON serializable"),
        ((float("nan"),), ValueError, "row 700: args.user_id: nan"),
        (("\0",), ValueError, "row 700: args.user_id: contains a NUL"),
        (("x" * MAX_ARGS,), PayloadTooLarge, "row 700: args takes 262,158 bytes"),
        ("text", TypeError, "row 700: a row must be a tuple, a list or a dict, not 'text'"),
        (7, TypeError, "row 700: a row must be a tuple, a list or a dict, not 7"),
    ],
)
@pytest.mark.parametrize("ids", [False, True])
def test_a_row_that_cannot_be_a_job_is_named_and_leaves_nothing(
    send: Task[..., None], query: Query, row: Any, error: type[Exception], message: str, ids: bool
) -> None:
    rows: list[Any] = [(n,) for n in range(700)] + [row] + [(1,)] * 10
    with pytest.raises(error) as caught:
        send.enqueue_many(rows, ids=ids)  # type: ignore[call-overload]
    assert str(caught.value).startswith(message)
    assert query(COUNT) == [(0,)]
    assert send.enqueue_many([(1,)]) == 1, "the connection is as good as before"


def test_an_error_of_the_source_leaves_nothing_and_is_its_own(send: Task[..., None], query: Query) -> None:
    def rows() -> Iterator[tuple[int]]:
        yield from ((n,) for n in range(2000))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        send.enqueue_many(rows())
    assert query(COUNT) == [(0,)]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_bad_row_leaves_the_callers_transaction_alive(
    send: Task[..., None], database: Database, query: Query, autocommit: bool
) -> None:
    conn = database.connect(autocommit=autocommit)
    many = send.using(conn).enqueue_many
    with pytest.raises(TypeError, match="row 1"):
        many([(1,), ()])
    assert many([(1,)]) == 1
    with pytest.raises(TypeError, match="row 1"):
        many([(2,), ()])
    conn.execute("SELECT 1")
    conn.commit()
    assert query(COUNT) == [(1,)]


def test_on_the_callers_connection_the_caller_commits(send: Task[..., None], database: Database, query: Query) -> None:
    conn = database.connect(autocommit=False)
    send.using(conn).enqueue_many([(1,), (2,)])
    send.using(conn).enqueue_many([(3,)], ids=True)
    assert query(COUNT) == [(0,)]
    conn.rollback()
    send.using(conn).enqueue_many([(1,)])
    conn.commit()
    assert query(COUNT) == [(1,)]


def test_a_pipeline_cannot_copy_and_says_so(send: Task[..., None], database: Database) -> None:
    conn = database.connect()
    with conn.pipeline(), pytest.raises(InvalidOperation, match="cannot run inside a pipeline"):
        send.using(conn).enqueue_many([(1,)])


def test_a_slow_source_is_no_stuck_statement(send: Task[..., None], app: App, query: Query) -> None:
    """The connection's own statement timeout does not end a COPY that waits for its source."""
    with app.pool.connection() as conn:
        conn.execute("SET statement_timeout = '500ms'")
        conn.execute("SET idle_in_transaction_session_timeout = '500ms'")

    def rows() -> Iterator[tuple[int]]:
        for n in range(3):
            ((began,),) = query("SELECT extract(epoch FROM clock_timestamp())::float")
            while query("SELECT extract(epoch FROM clock_timestamp())::float")[0][0] < began + 0.2:
                pass
            yield (n,)

    assert send.enqueue_many(rows()) == 3
    assert len(send.enqueue_many(rows(), ids=True)) == 3


def test_memory_does_not_grow_with_the_number_of_rows(send: Task[..., None]) -> None:
    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        assert send.enqueue_many((n,) for n in range(count)) == count
        return tracemalloc.get_traced_memory()[1] - before

    send.enqueue_many([(1,)])
    tracemalloc.start()
    try:
        assert peak(40_000) < peak(4_000) + 100_000
    finally:
        tracemalloc.stop()


def test_a_connection_that_dies_meanwhile_leaves_nothing(
    send: Task[..., None], database: Database, query: Query
) -> None:
    conn = database.connect(autocommit=False)

    def rows() -> Iterator[tuple[int]]:
        yield from ((n,) for n in range(1000))
        query("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
        yield from ((n,) for n in range(100_000))

    with pytest.raises(psycopg.OperationalError):
        send.using(conn).enqueue_many(rows())
    assert query(COUNT) == [(0,)]


@pytest.mark.parametrize("ids", [False, True])
def test_the_source_may_use_the_connection_that_the_jobs_are_written_on(
    send: Task[..., None], database: Database, query: Query, ids: bool
) -> None:
    conn = database.connect(autocommit=False)

    def rows() -> Iterator[tuple[int]]:
        for _ in range(2):
            for (n,) in conn.execute(f"SELECT generate_series(1, {MAX_BLOCK_ROWS})".encode()):
                if n == 1:
                    send.using(conn).enqueue("nested")
                yield (n,)

    many = send.using(conn).enqueue_many
    assert (len(many(rows(), ids=True)) if ids else many(rows())) == 2 * MAX_BLOCK_ROWS
    assert query(COUNT) == [(0,)]
    conn.commit()
    assert query(COUNT) == [(2 * MAX_BLOCK_ROWS + 2,)]


def test_a_server_side_cursor_may_be_the_source(send: Task[..., None], database: Database, query: Query) -> None:
    conn = database.connect(autocommit=False)
    with conn.cursor("page") as cursor:
        cursor.itersize = 700
        cursor.execute(f"SELECT generate_series(1, {MAX_BLOCK_ROWS + 5})".encode())
        assert send.using(conn).enqueue_many(cursor) == MAX_BLOCK_ROWS + 5
    conn.commit()
    assert query(COUNT) == [(MAX_BLOCK_ROWS + 5,)]


def test_a_bad_row_ends_the_sources_own_savepoint_before_the_bulks(
    send: Task[..., None], database: Database, query: Query
) -> None:
    conn = database.connect(autocommit=False)

    def rows() -> Iterator[tuple[int, ...]]:
        with conn.transaction():
            yield from [(1,), ()]

    with pytest.raises(TypeError, match="row 1: send"):
        send.using(conn).enqueue_many(rows())
    assert send.using(conn).enqueue_many([(1,)]) == 1
    conn.commit()
    assert query(COUNT) == [(1,)]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("length", [100, 9_900, 10_100, 1_000_000])
def test_a_long_error_of_the_source_leaves_the_connection_as_it_was(
    send: Task[..., None], database: Database, app: App, length: int, joined: bool
) -> None:
    conn = database.connect(autocommit=False)
    task = send.using(conn) if joined else send

    def rows() -> Iterator[tuple[int]]:
        yield from ((n,) for n in range(2_000))
        raise ValueError("x" * length)

    conn.execute("CREATE TEMP TABLE mine ()")
    with pytest.raises(ValueError, match=r"^x+$") as caught:
        task.enqueue_many(rows())
    assert len(str(caught.value)) == length
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    with app.pool.connection() as own:
        pid = own.info.backend_pid
    with pytest.raises(ValueError, match=r"^x+$"):
        task.enqueue_many(rows())
    with app.pool.connection() as own:
        assert own.info.backend_pid == pid


@pytest.mark.parametrize("row", ["y" * 20_000, ({"k" * 20_000: {1}},), {"n" * 20_000: 1}, ({("t" * 20_000,): 1},)])
def test_a_message_about_a_row_is_cut(send: Task[..., None], database: Database, row: Any) -> None:
    conn = database.connect(autocommit=False)
    with pytest.raises(TypeError, match=r"^row 1: ") as caught:
        send.using(conn).enqueue_many([(1,), row])
    assert len(str(caught.value)) < MAX_MESSAGE + 100
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_timeout_of_the_caller_ends_a_copy_that_waits(
    send: Task[..., None], database: Database, query: Query
) -> None:
    conn = database.connect(autocommit=False)
    conn.execute("SET statement_timeout = '300ms'")
    conn.commit()
    other = database.connect(autocommit=False)
    other.execute("LOCK TABLE qworker.job IN SHARE MODE")
    with pytest.raises(psycopg.errors.QueryCanceled):
        send.using(conn).enqueue_many([(1,)])
    assert conn.info.transaction_status.name == "INTRANS"
    other.rollback()
    assert send.using(conn).enqueue_many([(1,)]) == 1


def test_large_rows_are_written_in_small_blocks(send: Task[..., None], database: Database) -> None:
    conn = database.connect(autocommit=False)
    text = "x" * 200_000

    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        assert send.using(conn).enqueue_many((n, text) for n in range(count)) == count
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        assert peak(150) < peak(50) + 1_000_000
    finally:
        tracemalloc.stop()


def test_what_calls_the_callers_code_is_read_between_two_copies(
    send: Task[..., None], database: Database, query: Query
) -> None:
    """A dict that asks the database for its items, and a key that asks it for its name."""
    conn = database.connect(autocommit=False)

    class Lazy(dict[str, Any]):
        def items(self) -> Any:
            ((n,),) = conn.execute("SELECT 7")
            return {"n": n}.items()

    class Key:
        def __repr__(self) -> str:
            return f"<key {conn.execute('SELECT 8').fetchone()}>"

    many = send.using(conn).enqueue_many
    assert many([(1,), (Lazy(n=0),), (2,), {"user_id": Lazy(n=0)}, (3,)]) == 5
    assert len(many([(1,), (Lazy(n=0),), (2,)], ids=True)) == 3
    with pytest.raises(TypeError, match=r"row 1: .*<key \(8,\)>"):
        many([(1,), ({Key(): 1},)])
    conn.commit()
    stored = query("SELECT args -> 'user_id' FROM qworker.job ORDER BY seq")
    assert [value for (value,) in stored] == [1, {"n": 7}, 2, {"n": 7}, 3, 1, {"n": 7}, 2]
