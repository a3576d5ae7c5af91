"""A row that cannot be read fails alone: a claim that has met it is halved, and the jobs beside it are run."""

import secrets
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.migrations import migrate
from qworkerd.config.settings import Settings
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.run import make_node
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot
from qworkerd.worker.claimer import Claimer
from tests.database import Database
from tests.qworkerd.unconstrained import drop_constraints
from tests.waiting import until

#: 8,300 numbers of 131,072 digits: some bytes of jsonb each, and more text than a value can hold.
HUGE = "jsonb_build_object('x', to_jsonb(array_fill(1e131071::numeric, ARRAY[8300])))"


class Pit:
    """A worker's claims on a database whose constraints are gone."""

    def __init__(self, database: Database, server: EmbeddedPostgres) -> None:
        self.database = database
        self.conn = database.connect()
        self.server = server
        app = App(database.dsn)
        #: What `on_error` was called with.
        self.reported: list[tuple[int, str]] = []
        app.on_error(lambda job, error: self.reported.append((job.id, error.type)))
        self.node: NodeContext = make_node(app, Settings(dsn=database.dsn, processes=1, queues=("default", "second")))
        self.slot: Slot = self.node.table.slots[0]
        self.slot.assign(Role.WORKER, 1, 0.0, 0.0)
        self.node.table.header.node = 1
        self.link = ReconnectingConnection(self.node, "test", lambda _: None, lambda: False)
        self.claimer = Claimer(self.node, self.slot, self.link, self.node.tally.writer(1))

    def insert(self, queue: str = "default", args: str = "'{}'", count: int = 1) -> list[int]:
        rows = self.conn.execute(
            f"INSERT INTO qworker.job (task, queue, args) SELECT 'noop', '{queue}', {args}"  # noqa: S608
            f" FROM generate_series(1, {count}) RETURNING id".encode()
        ).fetchall()
        return [row[0] for row in rows]

    def damage(self, job: int, column: str) -> None:
        """Have a column hold bytes that are no UTF-8, as after a disk's or an upgrade's fault."""
        name = self.conn.info.dbname
        with psycopg.connect(self.server.dsn, autocommit=True) as admin:
            admin.execute("UPDATE pg_database SET encoding = 0 WHERE datname = %s", (name,))
            try:
                with psycopg.connect(self.database.dsn, autocommit=True, client_encoding="SQL_ASCII") as conn:
                    value = {"task": b"E'\\xff'", "args": b'E\'{"x": "\\xff"}\''}[column]
                    conn.execute(
                        b"UPDATE qworker.job SET " + column.encode() + b" = " + value + b" WHERE id = %d" % job
                    )
            finally:
                admin.execute("UPDATE pg_database SET encoding = 6 WHERE datname = %s", (name,))

    def take_all(self) -> tuple[list[int], list[int]]:
        """Claim until nothing is left; return the jobs taken, and how many each claim got."""
        taken: list[int] = []
        sizes = []
        for _ in range(30):
            claim = self.slot.claims[0]
            batch = self.claimer.claim(claim)
            if batch is not None:
                sizes.append(len(batch.pending))
                taken += [row[0] for row in batch.pending]
                claim.close()
            elif self.claimer.exhausted:
                break
        return taken, sizes

    def states(self) -> dict[int, str]:
        return dict(self.conn.execute("SELECT id, state::text FROM qworker.job").fetchall())


@pytest.fixture
def pit(postgres_server: EmbeddedPostgres) -> Iterator[Pit]:
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        drop_constraints(conn)
    pit = Pit(database, postgres_server)
    yield pit
    pit.link.drop()
    pit.claimer.close()
    pit.node.app.close()
    database.drop(postgres_server)


@pytest.fixture
def message(pit: Pit, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    message: list[Any] = []
    record = SimpleNamespace(
        warning=lambda *_, **__: None, error=lambda event, **facts: message.append((event, facts["job"]))
    )
    monkeypatch.setattr(pit.claimer._single, "_log", record)
    return message


@pytest.mark.parametrize("size", [1, 4])
def test_arguments_that_no_answer_can_hold_fail_their_job_alone(pit: Pit, message: list[Any], size: int) -> None:
    before, (bad,), after, others = (
        pit.insert(count=2),
        pit.insert(args=HUGE),
        pit.insert(count=3),
        pit.insert("second", count=2),
    )
    pit.claimer.batch_size.size = size
    taken, _ = pit.take_all()
    assert sorted(taken) == before + after + others
    assert pit.states()[bad] == "failed"
    ((error,),) = pit.conn.execute("SELECT errors -> -1 FROM qworker.job WHERE id = %s", (bad,)).fetchall()
    assert (error["type"], error["cause"], error["attempt"]) == ("PayloadTooLarge", "unreadable", 1)
    assert message == [("job.unreadable", bad)]
    until(lambda: pit.reported)
    assert pit.reported == [(bad, "PayloadTooLarge")]


@pytest.mark.parametrize("column", ["task", "args"])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_text_that_cannot_be_decoded_fails_its_job_alone(pit: Pit, message: list[Any], column: str, size: int) -> None:
    before, (bad,), after = pit.insert(count=2), pit.insert(), pit.insert("second", count=3)
    pit.damage(bad, column)
    pit.claimer.batch_size.size = size
    taken, _ = pit.take_all()
    assert sorted(taken) == before + after
    assert pit.states()[bad] == "failed"
    assert message == [("job.unreadable", bad)]
    until(lambda: pit.reported)
    assert [job for job, _ in pit.reported] == [bad]


def test_a_claim_too_large_for_the_workers_memory_goes_back_and_is_halved(
    pit: Pit, message: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = pit.insert(count=8)
    original = pit.claimer._claims.claim

    def claim(*words: Any, **named: Any) -> Any:
        rows = original(*words, **named)
        if len(rows) > 2:
            raise MemoryError
        return rows

    monkeypatch.setattr(pit.claimer, "_claims", Wrapped(pit.claimer._claims, claim))
    pit.claimer.batch_size.size = 8
    taken, sizes = pit.take_all()
    assert sorted(taken) == jobs
    assert max(sizes) == 2
    assert message == []


class Wrapped:
    """Statements of which one is replaced."""

    def __init__(self, claims: Any, claim: Any) -> None:
        self._claims = claims
        self.claim = claim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claims, name)
