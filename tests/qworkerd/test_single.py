"""A job whose claim the database refuses waits, and holds up neither the jobs behind it nor those of other queues."""

from collections.abc import Iterator
from typing import Any

import pytest

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.run import make_node
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot
from qworkerd.worker import single
from qworkerd.worker.claimer import Claimer
from tests.database import Database
from tests.refusing import refusing

REFUSED = "NEW.state = 'running' AND NEW.task = 'refused'"


@pytest.fixture
def node(database: Database) -> NodeContext:
    node = make_node(App(), Settings(dsn=database.dsn, processes=1, queues=("first", "second")))
    node.table.header.node = 1
    return node


@pytest.fixture
def claimer(node: NodeContext) -> Iterator[Claimer]:
    slot: Slot = node.table.slots[0]
    slot.assign(Role.WORKER, 1, 0.0, 0.0)
    link = ReconnectingConnection(node, "test", lambda _: None, lambda: False)
    yield Claimer(node, slot, link, node.tally.writer(1))
    link.drop()


def insert(database: Database, *jobs: tuple[str, str]) -> None:
    for task, queue in jobs:
        database.connect().execute("INSERT INTO qworker.job (task, queue) VALUES (%s, %s)", [task, queue])


def take(node: NodeContext, claimer: Claimer, times: int) -> list[str]:
    """Claim so often; return the tasks of what was claimed."""
    claimed: list[str] = []
    for _ in range(times):
        claim = next(claim for claim in node.table.slots[0].claims if not claim.token)
        batch = claimer.claim(claim)
        claimed += [row[4] for row in batch.pending] if batch else []
    return claimed


@pytest.mark.parametrize("deferred", [False, True])
def test_a_claim_that_a_trigger_refuses_is_stepped_over(
    database: Database, node: NodeContext, claimer: Claimer, *, deferred: bool
) -> None:
    insert(database, ("refused", "first"), ("a", "first"), ("refused", "first"), ("b", "first"), ("c", "second"))
    with refusing(database.connect(), "UPDATE", REFUSED, deferred=deferred):
        assert take(node, claimer, 4) == ["a", "b", "c"]
        assert claimer.exhausted
        assert claimer.retry_in == 0.0


def test_a_job_that_was_refused_is_tried_again(
    database: Database, node: NodeContext, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, ("refused", "first"))
    with refusing(database.connect(), "UPDATE", REFUSED):
        assert take(node, claimer, 2) == []
    assert take(node, claimer, 1) == [], "not at once"
    monkeypatch.setattr(single, "monotonic", lambda: float("inf"))
    assert take(node, claimer, 1) == ["refused"]


def test_many_refused_jobs_of_one_queue_do_not_hold_up_another(
    database: Database, node: NodeContext, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "MAX_REJECTED", 15)
    insert(database, *[("refused", "first")] * 40, ("a", "first"), ("b", "second"))
    with refusing(database.connect(), "UPDATE", REFUSED):
        assert take(node, claimer, 4) == ["b"]
        assert len(claimer._single._rejected) == 15


def test_an_error_that_is_no_rows_fault_makes_all_claims_wait(
    database: Database, node: NodeContext, claimer: Claimer
) -> None:
    insert(database, ("a", "first"))
    conn: Any = database.connect()
    conn.execute("ALTER TABLE qworker.job RENAME COLUMN progress TO moved")
    try:
        assert take(node, claimer, 1) == []
        assert claimer.retry_in > 0
    finally:
        conn.execute("ALTER TABLE qworker.job RENAME COLUMN moved TO progress")
    assert take(node, claimer, 1) == ["a"]
