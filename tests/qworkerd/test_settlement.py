"""A dead worker's claim: each outcome that can be read is written, and who cannot be to blame is not charged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
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
from qworkerd.outcomes.writes import group
from qworkerd.run import make_node
from qworkerd.scheduler import rejections, settlement
from qworkerd.scheduler.poller import NO_RESULT
from qworkerd.scheduler.reconciliation import Reconciliation
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.settlement import Settlement
from qworkerd.shared.claim import Claim, Status, new_token
from qworkerd.shared.slots import Role, Slot, SlotState
from qworkerd.shared.tally import Counter
from qworkerd.worker import write_queue
from qworkerd.worker.write_queue import WriteQueue
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
        settlement = Settlement(self.node, self.recovery, Reporter(self.node.app), self.node.tally.writer(0))
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
        if "bad" in (named.get("results") or ""):
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


def counted(dead_worker: DeadWorker) -> dict[str, int]:
    """Return the counters of jobs that are not zero, without times."""
    cells = dead_worker.node.tally.read(dead_worker.node.tally.numbers["default", "noop"])
    return {counter.name: cells[counter] for counter in Counter if cells[counter] and counter < Counter.RUN}


def as_worker(dead_worker: DeadWorker, claim: Claim) -> WriteQueue:
    """Return the queue of writes of the dead worker, when it lived."""
    claim.count_as([dead_worker.node.tally.numbers["default", "noop"]] * claim.unsettled, [0.5] * claim.unsettled)
    connection: Any = SimpleNamespace(get=lambda: dead_worker.conn, usable_after=lambda _: False)
    return WriteQueue(dead_worker.node, dead_worker.slot, connection, dead_worker.node.tally.writer(1), lambda: None)


OUTCOMES: list[Outcome] = [
    Completed(0.5, None), Completed(2.5, '"x"'), Retried(60.0, ERROR | {"at": "1"}), Failed(ERROR, hook=False),
    Snoozed(60.0), Terminated(JobState.CANCELLED, 1.0, ERROR),
]  # fmt: skip
COUNTED = {
    "SUCCEEDED": 2, "RETRIED": 1, "RAISED": 1, "SNOOZED": 1, "CANCELLED_ATTEMPTS": 1, "FAILED": 1, "CANCELLED": 1,
}  # fmt: skip


def test_what_a_worker_has_written_when_it_was_killed_is_counted_once(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, ids = dead_worker.claim(7)
    writes = as_worker(dead_worker, claim)
    dead_worker.end(claim, OUTCOMES)
    # It is killed when the database has executed the writes, and before it has counted them.
    monkeypatch.setattr(write_queue, "count_acknowledged", lambda *_: None)
    writes.add(group([(claim, job, outcome) for job, outcome in zip(ids, OUTCOMES, strict=False)]))
    writes.run_due()
    assert counted(dead_worker) == {}
    claim.statuses[6] = Status.RUNNING
    dead_worker.mark_slot_dead()
    assert counted(dead_worker) == COUNTED | {"SIGNALLED": 1}


def test_a_commit_that_is_executed_while_its_worker_is_recovered_is_counted(
    dead_worker: DeadWorker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, ids = dead_worker.claim(1)
    as_worker(dead_worker, claim)
    dead_worker.end(claim, [Completed(0.5, None)])
    with database.connect() as session:
        session.execute("BEGIN")
        assert Claims().acknowledge(session, claim.token, ids) == ids
        is_over = Settlement.is_over

        def committed(own: Settlement, conn: Any, token: int) -> bool:
            session.execute("COMMIT")
            return is_over(own, conn, token)

        monkeypatch.setattr(Settlement, "is_over", committed)
        dead_worker.mark_slot_dead()
    assert dead_worker.slot.state is SlotState.FREE
    assert counted(dead_worker) == {"SUCCEEDED": 1}


def test_what_a_worker_has_counted_is_not_counted_again_by_its_recovery(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(8)
    writes = as_worker(dead_worker, claim)
    dead_worker.end(claim, OUTCOMES)
    writes.add(group([(claim, job, outcome) for job, outcome in zip(ids, OUTCOMES, strict=False)]))
    writes.run_due()
    assert counted(dead_worker) == COUNTED
    claim.statuses[6] = Status.RUNNING
    dead_worker.mark_slot_dead()
    assert counted(dead_worker) == COUNTED | {"SIGNALLED": 1, "RELEASED": 1}, "one was not started"


@pytest.mark.parametrize("run_again", [False, True])
def test_a_crash_that_a_killed_scheduler_has_written_is_counted_by_the_next_one(
    dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch, run_again: bool
) -> None:
    claim, ids = dead_worker.claim(2)
    as_worker(dead_worker, claim)
    claim.statuses[0] = Status.RUNNING
    with monkeypatch.context() as patch:
        patch.setattr(settlement, "count_written", lambda *_: 1 / 0)  # killed
        patch.setattr(Claim, "mark_counted", lambda *_: None)
        dead_worker.mark_slot_dead()
    assert counted(dead_worker) == {}
    if run_again:  # by another worker, before there is another scheduler
        Claims().claim(dead_worker.conn, node=1, token=7, queues=["default"], priorities=[5], cursors=[0], limit=1)
        assert Claims().acknowledge(dead_worker.conn, 7, ids[:1]) == ids[:1]
    dead_worker.burials.recover(dead_worker.conn)
    assert counted(dead_worker) == {"SIGNALLED": 1, "RELEASED": 1}
    assert dead_worker.slot.state is SlotState.FREE


def test_jobs_that_another_node_has_rescued_are_not_counted_by_their_outcomes(dead_worker: DeadWorker) -> None:
    """The worker was killed because its lease had ended, before it could write."""
    claim, _ = dead_worker.claim(4)
    as_worker(dead_worker, claim)
    dead_worker.end(claim, [Completed(0.5, None), Retried(60.0, ERROR), Failed(ERROR, hook=False)])
    claim.statuses[3] = Status.RUNNING
    dead_worker.recovery.rescue(dead_worker.conn, 1, 10, '{"type": "NodeLost", "message": "", "cause": "node_lost"}')
    dead_worker.mark_slot_dead("lease")
    assert counted(dead_worker) == {}
    assert dead_worker.slot.state is SlotState.FREE


@pytest.mark.parametrize("outcome", OUTCOMES[2:], ids=lambda outcome: type(outcome).__name__)
def test_an_outcome_whose_answer_was_lost_is_counted(dead_worker: DeadWorker, outcome: Outcome) -> None:
    claim, ids = dead_worker.claim(1)
    writes = as_worker(dead_worker, claim)
    (write,) = group([(claim, ids[0], outcome)])
    write.write(Claims(), dead_worker.conn)
    write.uncertain = True
    writes.add([write])
    writes.run_due()
    found = counted(dead_worker)
    assert sum(found.values()) == 1 + ("FAILED" in found) + ("CANCELLED" in found)
    assert found.items() <= COUNTED.items()
    cells = dead_worker.node.tally.read(dead_worker.node.tally.numbers["default", "noop"])
    assert cells[Counter.WAIT] == (0 if isinstance(outcome, Snoozed) else 500_000)


def test_damaged_memory_of_a_claim_prevents_no_recovery(dead_worker: DeadWorker) -> None:
    claim, ids = dead_worker.claim(4)
    as_worker(dead_worker, claim)
    dead_worker.end(claim, [Retried(60.0, ERROR | {"at": "\0"}), Failed(ERROR | {"at": "\ud800"}, hook=False)])
    claim.ids[0], claim.ids[1] = -(2**63), 2**63 - 1
    claim.attempts[0] = 2**32 - 1
    claim._series[1] = 65_535
    dead_worker.mark_slot_dead()
    assert dead_worker.slot.state is SlotState.FREE
    assert all(state != "running" for state, *_ in dead_worker.rows(ids))
