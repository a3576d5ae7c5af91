"""A dead worker's claim: each outcome that can be read is written, and who cannot be to blame is not charged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.job import JobState
from qworker.recovery import Recovery
from qworkerd.config.settings import Settings
from qworkerd.outcomes.outcome import Completed, Failed, Outcome, Released, Retried, Snoozed, Terminated, dump
from qworkerd.outcomes.reports import Reporter
from qworkerd.run import make_node
from qworkerd.scheduler import rejections
from qworkerd.scheduler.poller import NO_RESULT
from qworkerd.scheduler.reconciliation import Reconciliation
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.claim import Claim, Status, new_token
from qworkerd.shared.slots import Role, Slot, SlotState
from tests.database import Database

ERROR: dict[str, Any] = {"type": "ValueError", "message": "no", "traceback": "", "attempt": 1}
#: More than a claim can have made room for.
UNREADABLE = b"\xff"


class DeadWorker:
    """A worker's slot, to be filled and settled."""

    def __init__(self, database: Database) -> None:
        self.conn = connect(database.dsn, "test")
        self.node = make_node(App(), Settings(dsn=database.dsn, processes=1))
        self.node.table.header.node = 1
        self.recovery = Recovery()
        own, self.slot = self.node.table.slots[:2]
        settlement = Settlement(self.node, self.recovery, Reporter(self.node.app))
        self.burials = DeadWorkers(self.node, self.recovery, own, settlement)
        self.reconciliation = Reconciliation(self.node, self.recovery, own, settlement)
        self.slot.assign(Role.WORKER, 1, 0.0, 0.0)

    def claim(self, jobs: int, **columns: object) -> tuple[Claim, list[int]]:
        """Make and claim so many jobs."""
        self.conn.execute("INSERT INTO qworker.job (task) SELECT 'noop' FROM generate_series(1, %s)", (jobs,))
        for name, value in columns.items():
            self.conn.execute(f"UPDATE qworker.job SET {name} = %s".encode(), (value,))  # noqa: S608
        claim = next(claim for claim in self.slot.claims if not claim.token)
        claim.open(new_token())
        rows = Claims().claim(
            self.conn, node=1, token=claim.token, queues=["default"], priorities=[5], cursors=[0], limit=jobs
        )
        ids = sorted(row[0] for row in rows)
        claim.fill(ids, [0] * jobs, [1] * jobs)
        return claim, ids

    def end(self, claim: Claim, outcomes: Sequence[Outcome | bytes | None]) -> None:
        """Have the first jobs of a claim ended, with an outcome, or bytes that are none; None: with no trace of it."""
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, Completed) and outcome.result is None:
                claim.statuses[position] = Status.SUCCEEDED
                continue
            if outcome is not None:
                assert claim.store_outcome(position, outcome if isinstance(outcome, bytes) else dump(outcome))
            claim.statuses[position] = Status.DONE

    def mark_slot_dead(self, cause: str = "signal:SEGV") -> None:
        self.slot.mark_dead(cause)
        self.burials.recover(self.conn)

    def rows(self, ids: list[int]) -> list[tuple[Any, ...]]:
        """Return state, attempt, crashes and node_losses of jobs."""
        return self.conn.execute(
            "SELECT state::text, attempt, crashes, node_losses FROM qworker.jobs WHERE id = ANY (%s) ORDER BY id",
            (ids,),
        ).fetchall()


@pytest.fixture
def dead_worker(database: Database) -> Iterator[DeadWorker]:
    dead_worker = DeadWorker(database)
    yield dead_worker
    dead_worker.conn.close()


def test_each_outcome_that_stands_in_the_slot_is_written_as_the_worker_would_have(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(8)
    dead_worker.end(claim, [
        Completed(0.5, None), Completed(2.5, '{"a":1e2}'), Retried(60.0, ERROR), Failed(ERROR, hook=True),
        Snoozed(60.0), Snoozed(60.0, unknown_task=True), Released(), Terminated(JobState.CANCELLED, 1.0, ERROR),
    ])  # fmt: skip
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [
        ("completed", 1, 0, 0), ("completed", 1, 0, 0), ("scheduled", 1, 0, 0), ("failed", 1, 0, 0),
        ("scheduled", 0, 0, 0), ("scheduled", 0, 0, 0), ("available", 0, 0, 0), ("cancelled", 1, 0, 0),
    ]  # fmt: skip
    rows = "SELECT duration, result FROM qworker.job_history WHERE id = %s"
    assert dead_worker.conn.execute(rows, (ids[1],)).fetchall() == [(2.5, {"a": 100})]
    (hook,) = dead_worker.conn.execute("SELECT args FROM qworker.job WHERE id <> ALL (%s)", (ids,)).fetchall()
    assert hook == ({"job": ids[3]},)
    assert dead_worker.slot.state is SlotState.FREE


@pytest.mark.parametrize(
    ("outcome", "row"),
    [(Retried(60.0, ERROR), ("scheduled", 1, 0, 0)), (Completed(0.5, "1"), ("completed", 1, 0, 0)),
     (UNREADABLE, ("available", 1, 1, 0))],
)  # fmt: skip
def test_a_job_whose_outcome_is_stored_has_ended_though_it_is_marked_as_running(
    dead_worker: DeadWorker, outcome: Outcome | bytes, row: tuple[Any, ...]
) -> None:
    claim, ids = dead_worker.claim(3)
    dead_worker.end(claim, [Completed(0.5, None), outcome])
    claim.statuses[1] = Status.RUNNING
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0), row, ("available", 0, 0, 0)]


def test_of_jobs_that_left_no_outcome_the_last_is_charged_and_the_others_are_counted_as_lost(
    dead_worker: DeadWorker,
) -> None:
    claim, ids = dead_worker.claim(5)
    dead_worker.end(claim, [None, UNREADABLE, Completed(1.0, "1"), None])
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [
        ("available", 0, 0, 1), ("available", 0, 0, 1), ("completed", 1, 0, 0), ("available", 1, 1, 0),
        ("available", 0, 0, 0),
    ]  # fmt: skip


def test_beside_a_job_that_ran_no_other_is_charged(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(3)
    dead_worker.end(claim, [None])
    claim.statuses[1] = Status.RUNNING
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [("available", 0, 0, 1), ("available", 1, 1, 0), ("available", 0, 0, 0)]


@pytest.mark.parametrize("cause", ["signal:SEGV", "stalled"])
def test_a_job_that_leaves_no_outcome_each_time_fails(dead_worker: DeadWorker, cause: str) -> None:
    claim, ids = dead_worker.claim(1, crashes=2)
    dead_worker.end(claim, [None])
    dead_worker.mark_slot_dead(cause)
    assert dead_worker.rows(ids) == [("failed", 1, 3, 0)]


@pytest.mark.parametrize(("cause", "node_losses"), [("shutdown", 0), ("lease", 1)])
def test_a_death_that_is_nobodys_fault_charges_nobody(dead_worker: DeadWorker, cause: str, node_losses: int) -> None:
    claim, ids = dead_worker.claim(1)
    dead_worker.end(claim, [None])
    dead_worker.mark_slot_dead(cause)
    assert dead_worker.rows(ids) == [("available", 0, 0, node_losses)]


def test_what_the_acknowledger_has_stored_already_blames_nobody(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(2)
    dead_worker.end(claim, [None, None])
    Claims().acknowledge(dead_worker.conn, claim.token, ids)
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0)] * 2


def test_a_locked_job_is_settled_as_what_it_was_once_it_is_free(dead_worker: DeadWorker, database: Database) -> None:
    claim, ids = dead_worker.claim(3)
    dead_worker.end(claim, [Completed(1.0, "1"), None, None])
    with database.connect(autocommit=False) as other:
        other.execute("SELECT FROM qworker.job WHERE id = ANY (%s) FOR UPDATE", (ids,))
        dead_worker.mark_slot_dead()
        assert dead_worker.rows(ids) == [("running", 1, 0, 0)] * 3
        assert dead_worker.slot.words[Slot.STATE] == SlotState.DEAD
    dead_worker.burials.recover(dead_worker.conn)
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0), ("available", 0, 0, 0), ("available", 1, 1, 0)]
    assert dead_worker.slot.words[Slot.STATE] == SlotState.FREE


def test_a_result_that_the_database_refuses_is_left_out_and_holds_up_no_other(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, ids = dead_worker.claim(3)
    dead_worker.end(claim, [Completed(1.0, '"bad"'), Completed(1.0, "2"), Retried(60.0, ERROR)])
    acknowledge = Claims.acknowledge

    def refuse(self: Claims, *words: Any, **named: Any) -> list[int]:
        if "bad" in named.get("results", ""):
            raise psycopg.errors.ProgramLimitExceeded("no")
        return acknowledge(self, *words, **named)

    monkeypatch.setattr(Claims, "acknowledge", refuse)
    dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0), ("completed", 1, 0, 0), ("scheduled", 1, 0, 0)]
    results = dead_worker.conn.execute("SELECT result FROM qworker.job_history ORDER BY id").fetchall()
    assert results == [(None,), (2,)]


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TRIGGER refuse BEFORE {} ON qworker.job FOR EACH ROW WHEN ({}) EXECUTE FUNCTION refuse()
"""


@contextmanager
def refused(dead_worker: DeadWorker, rows: str, changes: str = "UPDATE OR DELETE") -> Iterator[None]:
    """Have the database refuse changes of these rows."""
    cursor = psycopg.ClientCursor(dead_worker.conn)
    cursor.execute(REFUSE.format(changes, rows).encode())
    try:
        yield
    finally:
        cursor.execute("DROP TRIGGER refuse ON qworker.job; DROP FUNCTION refuse")


@pytest.mark.parametrize("status", [Status.UNSTARTED, Status.RUNNING, Status.SUCCEEDED, Status.DONE])
def test_a_job_whose_row_takes_no_change_holds_up_no_other_and_is_abandoned_in_the_end(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    claim, ids = dead_worker.claim(3)
    dead_worker.end(claim, [Completed(1.0, "1")])
    claim.statuses[1] = status
    with refused(dead_worker, f"OLD.id = {ids[1]}"):
        dead_worker.mark_slot_dead()
        assert dead_worker.rows(ids) == [("completed", 1, 0, 0), ("running", 1, 0, 0), ("available", 0, 0, 0)]
        assert dead_worker.slot.words[Slot.STATE] == SlotState.DEAD
        monkeypatch.setattr(rejections, "LAST_RESORT", 0.0)
        dead_worker.burials.recover(dead_worker.conn)
    assert dead_worker.slot.words[Slot.STATE] == SlotState.FREE
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0), ("running", 1, 0, 0), ("available", 0, 0, 0)]


def test_a_job_whose_end_is_refused_for_good_fails_with_the_reason(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "LAST_RESORT", 0.0)
    claim, ids = dead_worker.claim(2)
    dead_worker.end(claim, [Completed(1.0, "1"), Retried(60.0, ERROR)])
    with refused(dead_worker, f"OLD.id = {ids[0]}", "DELETE"):
        dead_worker.mark_slot_dead()
    assert dead_worker.rows(ids) == [("failed", 1, 0, 0), ("scheduled", 1, 0, 0)]
    ((errors,),) = dead_worker.conn.execute("SELECT errors FROM qworker.job WHERE id = %s", (ids[0],)).fetchall()
    assert [error["type"] for error in errors] == ["EndRefused"]
    assert dead_worker.slot.state is SlotState.FREE


def test_a_refusal_that_ends_in_time_has_cost_nothing(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(1)
    dead_worker.end(claim, [Completed(1.0, "1")])
    with refused(dead_worker, "true"):
        dead_worker.mark_slot_dead()
        assert dead_worker.rows(ids) == [("running", 1, 0, 0)]
    dead_worker.burials.recover(dead_worker.conn)
    assert dead_worker.rows(ids) == [("completed", 1, 0, 0)]
    assert dead_worker.slot.state is SlotState.FREE


def test_a_claim_of_nobody_that_cannot_be_released_holds_up_no_other(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworkerd.scheduler.reconciliation.CONFIRM_AFTER", 0.0)
    first, (bad, good) = dead_worker.claim(2)
    second, (other,) = dead_worker.claim(1)
    for claim in (first, second):
        claim.close()
    sight = replace(NO_RESULT, has_running=True)
    dead_worker.reconciliation.since(0.0)
    with refused(dead_worker, f"OLD.id = {bad}"):
        with pytest.raises(psycopg.errors.RaiseException):
            dead_worker.reconciliation.release(dead_worker.conn, sight)
        states = [("running", 1, 0, 0), ("available", 0, 0, 0), ("available", 0, 0, 0)]
        assert dead_worker.rows([bad, good, other]) == states
        monkeypatch.setattr(rejections, "LAST_RESORT", 0.0)
        for _ in range(3):  # once it is abandoned, it is not tried again
            dead_worker.reconciliation.release(dead_worker.conn, sight)


def test_the_job_that_ran_in_a_stalled_worker_is_counted_as_lost(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(2)
    claim.statuses[0] = Status.RUNNING
    dead_worker.mark_slot_dead("stalled")
    assert dead_worker.rows(ids) == [("available", 0, 0, 1), ("available", 0, 0, 0)]
