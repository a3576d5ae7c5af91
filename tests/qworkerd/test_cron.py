"""Whose schedule holds while releases that disagree about it run side by side."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker import App
from qworker.connection import connect
from qworker.nodes import Nodes
from qworkerd.run import make_node
from qworkerd.scheduler.cron import AGAIN, Cron
from qworkerd.settings import Settings
from tests.database import Database


@pytest.fixture
def conn(database: Database) -> Iterator[Any]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def release(conn: Any, database: Database) -> Callable[[str], Cron]:
    def release(expression: str) -> Cron:
        """Start a node of a release with this schedule."""
        app = App()
        app.cron(expression)(app.task(name="report")(lambda: None))
        node = make_node(app, Settings(dsn=database.dsn, processes=1))
        node.table.header.node = Nodes().register(
            conn, name="here", version="1", queues=["default"], processes=1, lease=30.0
        )
        cron = Cron(node, Nodes())
        cron.enqueue(conn)
        return cron

    return release


def declared(conn: Any) -> list[str]:
    return [row[0] for row in conn.execute("SELECT expression FROM qworker.cron")]


def test_the_newest_release_wins_and_the_old_one_does_not_take_it_back(
    conn: Any, release: Callable[[str], Cron]
) -> None:
    old = release("0 9 * * *")
    release("0 10 * * *")
    for _ in range(3):
        old.enqueue(conn)
    assert declared(conn) == ["0 10 * * *"]


def test_a_release_that_is_withdrawn_leaves_its_schedule_to_the_old_one(
    conn: Any, release: Callable[[str], Cron]
) -> None:
    """Its last node is gone, and the nodes of the old release were never restarted: they have to tick again."""
    old = release("0 9 * * *")
    new = release("0 10 * * *")
    old.enqueue(conn)
    (now,) = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert old.due_at <= now + AGAIN
    Nodes().leave(conn, new._node.table.header.node)
    old.enqueue(conn)
    assert declared(conn) == ["0 9 * * *"]
    conn.execute("UPDATE qworker.cron SET last_tick = last_tick - interval '1 day'")
    assert old.enqueue(conn) == 1
