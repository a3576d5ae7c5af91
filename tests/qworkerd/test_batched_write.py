"""A row that the database refuses keeps no duty of a scheduler from the other rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.db.connection import connect
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworkerd.config.settings import Settings
from qworkerd.outcomes.reports import Reporter
from qworkerd.run import make_node
from qworkerd.scheduler import batched_write
from qworkerd.scheduler.batched_write import BatchedWrite
from qworkerd.scheduler.promotion import Promotion
from qworkerd.scheduler.rescue import Rescue
from qworkerd.scheduler.retention import Retention
from qworkerd.shared.context import NodeContext
from tests.database import Database
from tests.refusing import refusing

Conn = psycopg.Connection[tuple[Any, ...]]
NODE, DEAD = 1, 2


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def node(database: Database) -> NodeContext:
    node = make_node(App(), Settings(dsn=database.dsn, processes=1))
    node.table.header.node = NODE
    return node


def promote(conn: Conn, node: NodeContext) -> Callable[[], object]:
    due = Promotion(Maintenance())
    due.start(0.0)
    return lambda: due.promote(conn, 0.0)


def rescue(conn: Conn, node: NodeContext) -> Callable[[], object]:
    found = Rescue(node, Recovery(), node.table.slots[0], Reporter(node.app), node.tally.writer(0))
    return lambda: found.rescue_node(conn, DEAD)


def expire(conn: Conn, node: NodeContext) -> Callable[[], object]:
    retention = Retention(node.settings, Maintenance(), node.tally.writer(0))
    return lambda: retention.expire(conn)


def discard(conn: Conn, node: NodeContext) -> Callable[[], object]:
    retention = Retention(node.settings, Maintenance(), node.tally.writer(0))
    return lambda: retention.discard(conn)


DUTIES = {
    # The duty, the jobs that wait for it, the event that is refused, and what becomes of the others.
    "promote": (promote, "state = 'scheduled', run_at = now() - interval '1 s'", "UPDATE", "available"),
    "rescue": (rescue, "state = 'running', node = 2, token = 7, claimed_at = now()", "UPDATE", "available"),
    "expire": (expire, "expires_at = now() - interval '1 s'", "DELETE", "cancelled"),
    "cancel": (expire, "cancel_requested_at = now() - interval '1 s'", "DELETE", "cancelled"),
    "discard": (discard, "state = 'failed', failed_at = now() - interval '90 days'", "DELETE", "discarded"),
}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("duty", DUTIES)
def test_a_duty_is_done_for_all_rows_but_those_that_a_trigger_refuses(
    conn: Conn, node: NodeContext, database: Database, monkeypatch: pytest.MonkeyPatch, duty: str, *, deferred: bool
) -> None:
    make, columns, event, outcome = DUTIES[duty]
    monkeypatch.setattr(batched_write, "TIME_LIMIT", 30.0)
    conn.execute(
        "INSERT INTO qworker.job (task)"
        " SELECT CASE WHEN n % 50 = 0 THEN 'refused' ELSE 'noop' END FROM generate_series(0, 149) AS n"
    )
    conn.execute(f"UPDATE qworker.job SET {columns}".encode())  # noqa: S608
    run = make(conn, node)
    before = conn.execute("SELECT state FROM qworker.jobs LIMIT 1").fetchone()
    with refusing(database.connect(), event, "OLD.task = 'refused'", deferred=deferred):
        run()
        found = conn.execute("SELECT task, array_agg(DISTINCT state) FROM qworker.jobs GROUP BY task").fetchall()
    assert sorted(found) == [("noop", [outcome]), ("refused", [*(before or ())])]


def test_a_row_that_was_refused_is_tried_again(
    conn: Conn, node: NodeContext, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("INSERT INTO qworker.job (task, state, run_at) VALUES ('refused', 'scheduled', now())")
    run = promote(conn, node)
    with refusing(database.connect(), "UPDATE", "OLD.task = 'refused'"):
        run()
    run()
    assert conn.execute("SELECT state::text FROM qworker.job").fetchall() == [("scheduled",)], "not at once"
    monkeypatch.setattr(batched_write, "monotonic", lambda: float("inf"))
    run()
    assert conn.execute("SELECT state::text FROM qworker.job").fetchall() == [("available",)]


def test_rows_that_take_too_long_together_are_written_in_parts(conn: Conn, database: Database) -> None:
    conn.execute("INSERT INTO qworker.job (task, expires_at) SELECT 'noop', now() FROM generate_series(1, 30)")
    admin = database.connect()
    admin.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER DELETE ON qworker.job FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )
    try:
        conn.execute("SET statement_timeout = '400ms'")
        maintenance, duty = Maintenance(), BatchedWrite("expire")
        ended = 0
        while part := duty.run(
            conn,
            lambda limit, excluded: maintenance.expire(conn, limit=limit, excluded=excluded),
            lambda excluded: maintenance.first_expired(conn, excluded),
        ):
            ended += len(part)
        assert ended == 30
    finally:
        admin.execute("DROP FUNCTION public.slow CASCADE")


def test_an_error_that_is_no_rows_fault_is_raised(conn: Conn) -> None:
    def reject(*, limit: int, excluded: Sequence[int]) -> list[int]:
        raise psycopg.errors.UndefinedTable("gone")

    with pytest.raises(psycopg.errors.UndefinedTable):
        BatchedWrite("expire").run(conn, reject, lambda *, excluded: None)  # noqa: ARG005 - as above
