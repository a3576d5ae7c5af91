"""The acknowledger settles finished jobs while the main thread runs the next, and waits for no session for ever."""

import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.job import JobState
from qworkerd.config.settings import Settings
from qworkerd.outcomes.outcome import Completed, Failed, Outcome, Released, Retried, Snoozed, Terminated, load
from qworkerd.outcomes.reports import Reporter
from qworkerd.process import exits
from qworkerd.run import make_node
from qworkerd.shared.claim import Claim, Status, new_token
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot
from qworkerd.shared.tally import Counter
from qworkerd.worker.acknowledger import Acknowledger
from qworkerd.worker.batch import Batch
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.runner import Runner
from tests.database import Database
from tests.suppressing import suppressing
from tests.waiting import until


class Harness:
    """An acknowledger with a database, and jobs for it to settle."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.node: NodeContext = make_node(App(), Settings(dsn=database.dsn, processes=1))
        self.slot: Slot = self.node.table.slots[0]
        self.slot.assign(Role.WORKER, 1, 0.0, 0.0)
        self.conn = connect(database.dsn, "test")
        self.acknowledging = Acknowledger(self.node, self.slot, "test", self.node.tally.writer(1))
        self.acknowledging.start()

    def claim(self, jobs: int, number: int = 0) -> tuple[Claim, list[int], Batch]:
        """Make and claim so many jobs."""
        self.conn.execute("INSERT INTO qworker.job (task) SELECT 'noop' FROM generate_series(1, %s)", (jobs,))
        claim = self.slot.claims[number]
        claim.open(new_token())
        rows = Claims().claim(
            self.conn, node=1, token=claim.token, queues=["default"], priorities=[5], cursors=[0], limit=jobs
        )
        rows.sort()
        ids = [row[0] for row in rows]
        claim.fill(ids, [0] * jobs, [1] * jobs)
        claim.series, claim.waits = [self.node.tally.numbers["default", "noop"]] * jobs, [row.waited for row in rows]
        return claim, ids, Batch(claim, rows)

    def counted(self) -> dict[str, int]:
        """Return the counters that are not 0, without sums."""
        cells = self.node.tally.read(self.node.tally.numbers["default", "noop"])
        return {c.name: cells[c] for c in Counter if cells[c] and c not in (Counter.RUN, Counter.WAIT)}

    def submit(self, done: Iterable[tuple[Claim, int, Outcome | None]]) -> None:
        """Submit several outcomes."""
        for claim, job, outcome in done:
            self.acknowledging.submit(claim, job, outcome)

    def states(self, ids: list[int]) -> list[str]:
        """Return the jobs' states."""
        rows = self.conn.execute("SELECT state FROM qworker.jobs WHERE id = ANY (%s) ORDER BY id", (ids,))
        return [row[0] for row in rows]


@pytest.fixture
def harness(database: Database) -> Iterator[Harness]:
    harness = Harness(database)
    yield harness
    harness.acknowledging.stop(1.0)
    harness.conn.close()


def error(kind: str) -> dict[str, Any]:
    return {"type": kind, "message": "", "traceback": "", "attempt": 1}


def test_each_outcome_becomes_what_it_says(harness: Harness) -> None:
    claim, ids, _ = harness.claim(5)
    outcomes = [None, Completed(0.5, '"yes"'), Retried(60.0, error("A")), Failed(error("B"), hook=False), Snoozed(60.0)]
    harness.submit(zip([claim] * 5, ids, outcomes, strict=True))
    assert harness.acknowledging.flush(5.0)
    assert harness.states(ids) == ["completed", "completed", "scheduled", "failed", "scheduled"]
    assert harness.conn.execute("SELECT result FROM qworker.job_history ORDER BY id").fetchall() == [(None,), ("yes",)]
    assert claim.token == 0


def test_each_outcome_is_counted_once(harness: Harness) -> None:
    claim, ids, _ = harness.claim(11)
    timed_out = {**error("TimeoutInterrupt"), "cause": "timeout"}
    harness.conn.execute("UPDATE qworker.job SET cancel_requested_at = now() WHERE id = %s", (ids[8],))
    outcomes = [
        None, Completed(0.5, '"yes"'), Retried(60.0, error("A"), duration=0.1), Failed(error("B"), hook=False),
        Snoozed(60.0), Snoozed(60.0, unknown_task=True), Retried(60.0, timed_out), Released(),
        Retried(60.0, error("C")), Terminated(JobState.DISCARDED, 0.1, error("D")), Released(3),
    ]  # fmt: skip
    harness.submit(zip([claim] * 11, ids, outcomes, strict=True))
    assert harness.acknowledging.flush(5.0)
    assert harness.counted() == {
        "SUCCEEDED": 2, "RETRIED": 2, "RAISED": 2, "SNOOZED": 1, "UNKNOWN_TASK": 1, "TIMED_OUT": 1, "INTERRUPTED": 1,
        "FAILED": 1, "CANCELLED": 1, "DISCARDED": 1, "RELEASED": 1,
    }  # fmt: skip


def test_only_what_the_database_has_changed_is_counted(harness: Harness) -> None:
    claim, ids, _ = harness.claim(3)
    harness.conn.execute("UPDATE qworker.job SET token = 5 WHERE id = %s", (ids[0],))
    harness.submit([(claim, job, None) for job in ids])
    assert harness.acknowledging.flush(5.0)
    assert harness.counted() == {"SUCCEEDED": 2}


def test_a_locked_job_is_counted_when_it_is_settled(harness: Harness) -> None:
    claim, ids, _ = harness.claim(3)
    with harness.conn.transaction():
        harness.conn.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (ids[1],))
        harness.submit([(claim, job, None) for job in ids])
        harness.acknowledging.wake()
        until(lambda: harness.counted() == {"SUCCEEDED": 2})
    until(lambda: claim.token == 0)
    assert harness.counted() == {"SUCCEEDED": 3}


def test_a_claim_stays_open_until_its_last_job_is_settled(harness: Harness) -> None:
    claim, ids, _ = harness.claim(2)
    harness.acknowledging.submit(claim, ids[0], None)
    assert harness.acknowledging.flush(5.0)
    assert claim.token != 0
    harness.acknowledging.submit(claim, ids[1], None)
    assert harness.acknowledging.flush(5.0)
    assert claim.token == 0


def test_what_waits_behind_a_long_job_is_handed_back_while_it_runs(harness: Harness) -> None:
    _, ids, batch = harness.claim(10)
    until(lambda: harness.acknowledging._sleeping)
    batch.pending.popleft()
    harness.slot.floats[Slot.STARTED] = began = monotonic()
    harness.acknowledging.watch(batch)
    until(lambda: harness.states(ids) == ["running"] + ["available"] * 9)
    assert monotonic() - began >= 0.1
    assert not batch.pending


def test_what_is_finished_is_settled_while_the_next_job_runs(harness: Harness) -> None:
    claim, ids, batch = harness.claim(2)
    until(lambda: harness.acknowledging._sleeping)
    harness.slot.floats[Slot.STARTED] = monotonic()
    batch.pending.clear()
    harness.acknowledging.watch(batch)
    until(lambda: harness.acknowledging._iterations)
    harness.acknowledging.submit(claim, ids[0], None)  # and nobody rings
    until(lambda: harness.states(ids) == ["completed", "running"])


def test_a_row_that_somebody_has_locked_is_not_waited_for(harness: Harness) -> None:
    claim, ids, _ = harness.claim(20)
    with harness.database.connect(autocommit=False) as stranger:
        stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (ids[7],))
        harness.submit((claim, job, None) for job in ids)
        began = monotonic()
        assert harness.acknowledging.flush(10.0)
        assert monotonic() - began < 5.0
        assert harness.states(ids) == ["completed"] * 7 + ["running"] + ["completed"] * 12
        assert claim.token != 0
    until(lambda: harness.states(ids) == ["completed"] * 20)
    until(lambda: claim.token == 0)


def test_flushing_waits_for_a_statement_that_is_out(harness: Harness) -> None:
    claim, ids, _ = harness.claim(1)
    stranger = harness.database.connect(autocommit=False)
    stranger.execute("LOCK TABLE qworker.job IN SHARE MODE")
    harness.acknowledging.submit(claim, ids[0], None)
    flushed: list[bool] = []
    thread = threading.Thread(target=lambda: flushed.append(harness.acknowledging.flush(10.0)))
    thread.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    until(lambda: harness.conn.execute(waiting, prepare=False).fetchone() == (1,))
    thread.join(0.2)
    assert thread.is_alive()
    stranger.rollback()
    thread.join(10)
    assert flushed == [True]
    assert harness.states(ids) == ["completed"]


def test_a_job_that_is_no_longer_ours_is_counted_and_left_alone(harness: Harness) -> None:
    claim, ids, _ = harness.claim(3)
    harness.conn.execute("UPDATE qworker.job SET token = 42 WHERE id = %s", (ids[1],))
    harness.submit((claim, job, None) for job in ids)
    assert harness.acknowledging.flush(5.0)
    assert harness.states(ids) == ["completed", "running", "completed"]
    assert (harness.slot.stale, claim.token) == (1, 0)


def test_a_lost_connection_is_made_again_and_nothing_is_lost(harness: Harness) -> None:
    claim, ids, _ = harness.claim(3)
    harness.acknowledging.submit(claim, ids[0], None)
    assert harness.acknowledging.flush(5.0)
    harness.conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    harness.submit((claim, job, None) for job in ids[1:])
    assert harness.acknowledging.flush(5.0)
    assert harness.states(ids) == ["completed"] * 3
    assert harness.slot.stale == 0


def test_stopping_settles_everything_first(harness: Harness) -> None:
    claim, ids, batch = harness.claim(4)
    harness.acknowledging.submit(claim, ids[0], None)
    batch.pending.popleft()
    assert harness.acknowledging.release(batch) == 3
    assert harness.acknowledging.stop(5.0)
    assert harness.states(ids) == ["completed"] + ["available"] * 3


def test_stopping_does_not_wait_for_a_locked_row_for_ever(harness: Harness) -> None:
    claim, ids, _ = harness.claim(1)
    with harness.database.connect(autocommit=False) as stranger:
        stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (ids[0],))
        harness.acknowledging.submit(claim, ids[0], None)
        assert not harness.acknowledging.stop(0.3)
        assert claim.token != 0  # the scheduler finds it in the slot


def test_a_job_the_database_chokes_on_does_not_hold_up_the_others(harness: Harness) -> None:
    claim, ids, _ = harness.claim(9)
    harness.conn.execute(
        "CREATE FUNCTION choke() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f"CREATE TRIGGER choke BEFORE DELETE ON qworker.job FOR EACH ROW WHEN (OLD.id = {ids[4]})"
        " EXECUTE FUNCTION choke()",
        prepare=False,
    )
    try:
        outcome = Completed(0.5, '"yes"')
        harness.submit((claim, job, outcome) for job in ids)
        harness.acknowledging.wake()
        until(lambda: claim.unsettled == 1)
        assert harness.states(ids) == ["completed"] * 4 + ["running"] + ["completed"] * 4
    finally:
        harness.conn.execute("DROP FUNCTION choke() CASCADE")
    until(lambda: claim.token == 0)
    assert harness.states([ids[4]]) == ["completed"]
    results = [row[0] for row in harness.conn.execute("SELECT result FROM qworker.job_history ORDER BY id")]
    assert results == ["yes"] * 9, "a row that was refused for a while keeps its result"


def test_an_error_that_is_not_the_databases_does_not_end_the_thread(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors, psycopg raises OSError. Without its acknowledger a worker would settle no job it has run."""
    claim, ids, _ = harness.claim(2)
    errors = [OSError(24, "Too many open files")] * 2

    def short(dsn: str, role: str, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return connect(dsn, role, **options)

    monkeypatch.setattr("qworker.db.connection.connect", short)
    original, calls = Claims.acknowledge, []

    def once(self: Claims, *words: Any, **named: Any) -> list[int]:
        calls.append(words)
        if len(calls) == 1:
            raise OSError(24, "Too many open files")
        return original(self, *words, **named)

    monkeypatch.setattr(Claims, "acknowledge", once)
    harness.submit((claim, job, None) for job in ids)
    harness.acknowledging.wake()
    until(lambda: harness.states(ids) == ["completed"] * 2)


def test_what_was_handed_back_is_not_counted_as_left_should_the_worker_die(harness: Harness) -> None:
    """The supervisor gives the unstarted jobs of a dead worker back to the budget: these are there already."""
    claim, ids, batch = harness.claim(4)
    batch.pending.popleft()
    claim.statuses[0] = Status.RUNNING
    harness.acknowledging.release(batch)
    assert harness.acknowledging.flush(5.0)
    assert harness.states(ids) == ["running", "available", "available", "available"]
    assert [entry.status for entry in claim.entries()] == [Status.RUNNING] + [Status.DONE] * 3


def test_an_outcome_without_room_in_the_slot_waits_until_those_before_are_stored(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stands there until it is stored: should the process die, none is forgotten."""
    large = "x" * 60_000
    app = App()
    app.task(name="large")(lambda: large)
    harness.conn.execute("INSERT INTO qworker.job (task) SELECT 'large' FROM generate_series(1, 5)")
    claim = harness.slot.claims[0]
    claim.open(new_token())
    rows = Claims().claim(
        harness.conn, node=1, token=claim.token, queues=["default"], priorities=[5], cursors=[0], limit=5
    )
    claim.fill([row[0] for row in rows], [0] * 5, [1] * 5)
    node = make_node(app, Settings(dsn=harness.database.dsn, processes=1))
    gate = InterruptGate()
    runner = Runner(node, harness.slot, gate, harness.acknowledging, Reporter(app))
    for position, row in enumerate(rows):
        runner.run(claim, position, row, monotonic())
        outcome = load(claim.read_outcome(position))
        assert isinstance(outcome, Completed)
        assert outcome.result == f'"{large}"'
    gate.disarm()
    assert harness.acknowledging.flush(5.0)
    assert harness.conn.execute("SELECT DISTINCT result FROM qworker.job_history").fetchall() == [(large,)]


def test_a_worker_ends_with_its_acknowledger_also_where_that_cannot_be_logged(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when there is no memory left: what goes on alone would run jobs whose outcomes nobody stores."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    class NoLog:
        critical = fail

    codes: list[int] = []
    monkeypatch.setattr("qworkerd.worker.acknowledger.os._exit", codes.append)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    monkeypatch.setattr(harness.acknowledging, "_log", NoLog())
    monkeypatch.setattr(harness.acknowledging, "_collect", fail)
    harness.acknowledging.wake()
    until(lambda: codes == [exits.SOFTWARE])


def test_a_row_that_is_too_large_for_the_server_is_no_outage(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """To psycopg it is an operational error, as those are that may pass."""

    def refuse(*_: Any, **__: Any) -> list[int]:
        raise psycopg.errors.ProgramLimitExceeded("index row size 2712 exceeds btree version 4 maximum 2704")

    monkeypatch.setattr("qworkerd.worker.write_queue.LAST_RESORT", 0.0)
    monkeypatch.setattr(Claims, "acknowledge", refuse)
    claim, ids, _ = harness.claim(1)
    harness.acknowledging.submit(claim, ids[0], None)
    harness.acknowledging.wake()
    until(lambda: harness.states(ids) == ["failed"])


def test_jobs_whose_end_takes_too_long_together_are_settled_in_parts(database: Database) -> None:
    """A trigger of the user's, or a slow disk: a statement that is cancelled for all may pass for some."""
    harness, admin = Harness(database), database.connect()
    harness.acknowledging._connection._options["statement_timeout"] = 0.5
    admin.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER INSERT ON qworker.job_history FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )
    try:
        claim, ids, _ = harness.claim(24)
        harness.submit((claim, job, None) for job in ids)
        harness.acknowledging.wake()
        until(lambda: harness.states(ids) == ["completed"] * 24)
        until(lambda: claim.token == 0)
    finally:
        harness.acknowledging.stop(1.0)
        harness.conn.close()
        admin.execute("DROP FUNCTION public.slow CASCADE")


def test_ended_jobs_whose_history_is_suppressed_are_reported_and_not_taken_for_stale(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    message: list[tuple[str, dict[str, Any]]] = []
    record = SimpleNamespace(
        error=lambda event, **facts: message.append((event, facts)),
        warning=lambda event, **facts: message.append((event, facts)),
    )
    monkeypatch.setattr(harness.acknowledging._writes, "_log", record)
    claim, ids, _ = harness.claim(2)
    with suppressing(harness.conn, "INSERT", table="job_history"):
        harness.submit((claim, job, None) for job in ids)
        assert harness.acknowledging.flush(5.0)
    ((event, facts),) = message
    assert (event, facts["jobs"]) == ("job.history_suppressed", ids)
    assert harness.slot.words[Slot.STALE] == 0
    message.clear()
    claim, ids, _ = harness.claim(1)
    harness.conn.execute("DELETE FROM qworker.job")
    harness.submit([(claim, ids[0], None)])
    assert harness.acknowledging.flush(5.0)
    assert [event for event, _ in message] == ["job.stale_write"]
