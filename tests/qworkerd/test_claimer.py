"""A claim's token stands in shared memory before the server hears of the claim, and for as long as it may hold jobs."""

import threading
from collections.abc import Iterator
from math import inf
from typing import Any, cast

import psycopg
import pytest

from qworker import App
from qworker.claims import ClaimedJob, Claims
from qworkerd.config.settings import Settings
from qworkerd.outcomes.writes import ReleaseWrite, raise_if_suppressed
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.run import make_node
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot
from qworkerd.worker.claimer import Claimer
from tests.database import Database
from tests.waiting import until

app = App()


@app.task(name="noop")
def noop() -> None:
    pass


@pytest.fixture
def node(database: Database) -> NodeContext:
    return make_node(app, Settings(dsn=database.dsn, processes=1, queues=("default", "second")))


@pytest.fixture
def slot(node: NodeContext) -> Slot:
    slot = node.table.slots[0]
    slot.assign(Role.WORKER, 1, 0.0, 0.0)
    node.table.header.node = 1
    return slot


@pytest.fixture
def link(node: NodeContext) -> Iterator[ReconnectingConnection]:
    link = ReconnectingConnection(node, "test", lambda _: None, lambda: False)
    yield link
    link.drop()


class Spy:
    """Stands for the statements: looks at the claim at the moment at which its own would be sent."""

    def __init__(self, claim: Claim, answer: list[ClaimedJob] | psycopg.Error) -> None:
        self.memory = claim
        self.answer = answer
        self.seen: list[tuple[int, int, list[Any]]] = []

    def claim(self, _: object, *, token: int, **__: object) -> list[ClaimedJob]:
        self.seen.append((token, self.memory.token, self.memory.entries()))
        if isinstance(self.answer, psycopg.Error):
            raise self.answer
        return self.answer


class Lent:
    """Stands for the link."""

    generation = 1

    def get(self) -> object:
        return self

    def usable_after(self, _: psycopg.Error) -> bool:
        return False


def job(number: int, seq: int, priority: int, queue: str) -> ClaimedJob:
    return ClaimedJob(number, seq, priority, queue, "noop", "{}", 1, 0, False, 0.0, None, 0)


def take(node: NodeContext, slot: Slot, answer: list[ClaimedJob] | psycopg.Error) -> tuple[Spy, Any]:
    spy = Spy(slot.claims[0], answer)
    taker = Claimer(node, slot, cast("ReconnectingConnection", Lent()), node.tally.writer(1))
    taker._claims = cast("Claims", spy)
    taker._probe_at = inf  # a spy has no jobs that it could have left
    return spy, taker.claim(slot.claims[0])


def test_the_token_stands_in_memory_when_the_claim_is_sent(node: NodeContext, slot: Slot) -> None:
    spy, batch = take(node, slot, [job(11, 1, 5, "default")])
    ((sent, standing, entries),) = spy.seen
    assert sent == standing != 0
    assert entries == []
    assert batch is not None
    assert slot.claims[0].token == sent
    assert [(e.id, e.status, node.task_name(e.task)) for e in slot.claims[0].entries()] == [
        (11, Status.UNSTARTED, "noop")
    ]


def test_no_two_claims_have_the_same_token(node: NodeContext, slot: Slot) -> None:
    assert len({take(node, slot, [])[0].seen[0][0] for _ in range(100)}) == 100


def test_a_claim_that_got_nothing_is_free_again(node: NodeContext, slot: Slot) -> None:
    assert take(node, slot, [])[1] is None
    assert node.table.tokens() == set()


def test_a_claim_whose_answer_was_lost_gives_its_token_up(node: NodeContext, slot: Slot) -> None:
    assert take(node, slot, psycopg.OperationalError("gone"))[1] is None
    assert node.table.tokens() == set()


def test_the_rows_are_put_in_the_order_of_queue_priority_and_place(node: NodeContext, slot: Slot) -> None:
    rows = [job(1, 4, 0, "second"), job(2, 3, 9, "default"), job(3, 2, 0, "default"), job(4, 1, 9, "default")]
    _, batch = take(node, slot, rows)
    assert [row[0] for row in batch.pending] == [3, 4, 2, 1]
    assert [entry.id for entry in slot.claims[0].entries()] == [3, 4, 2, 1]


def test_what_was_drawn_from_the_budget_and_not_claimed_is_given_back(database: Database, slot: Slot) -> None:
    node = make_node(app, Settings(dsn=database.dsn, processes=1, max_jobs=1))
    take(node, slot, [])
    assert not node.budget.exhausted
    take(node, slot, [job(1, 1, 5, "default")])
    assert node.budget.exhausted


def test_the_token_stands_in_memory_while_the_server_works_on_the_claim(
    node: NodeContext, slot: Slot, link: ReconnectingConnection, database: Database
) -> None:
    watcher, stranger = database.connect(), database.connect(autocommit=False)
    watcher.execute("INSERT INTO qworker.job (task) VALUES ('noop')")
    stranger.execute("LOCK TABLE qworker.job IN SHARE MODE")
    taken: list[Any] = []
    thread = threading.Thread(
        target=lambda: taken.append(Claimer(node, slot, link, node.tally.writer(1)).claim(slot.claims[0]))
    )
    thread.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    until(lambda: watcher.execute(waiting).fetchone() == (1,))
    token = slot.claims[0].token
    assert token != 0
    assert slot.claims[0].entries() == []
    stranger.rollback()
    thread.join(10)
    assert [row[4] for row in taken[0].pending] == ["noop"]
    assert watcher.execute("SELECT token, node, state::text FROM qworker.job").fetchall() == [(token, 1, "running")]


def test_the_claim_remains_prepared_while_a_worker_is_idle(
    node: NodeContext, slot: Slot, link: ReconnectingConnection
) -> None:
    """psycopg deallocates all statements after a rollback, and a claim by a cursor takes twice the CPU time."""
    claimer = Claimer(node, slot, link, node.tally.writer(1))
    for _ in range(5):
        claimer._probe_at = 0.0
        assert claimer.claim(slot.claims[0]) is None
    connection = link.get()
    assert connection is not None
    slot.claims[0].open(7)
    raise_if_suppressed(Claims(), ReleaseWrite(slot.claims[0]), connection)
    executed = "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE name ~ '^qworker_'"
    assert connection.execute(executed).fetchall() == [(5,)]
