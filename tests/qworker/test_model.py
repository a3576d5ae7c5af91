"""Every statement that changes jobs, in any order, against a model of what a job's life may be; and many at once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import time
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from qworker import App
from qworker.actor import current_actor
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.db.statements import load
from qworker.maintenance import Maintenance
from qworker.options import Options
from qworker.recovery import Recovery
from qworker.schedules import StoredSchedules
from qworker.spec import JobSpec
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

NODES = (1, 2)
MAX_LOSSES = 3
LATER = 3600.0
ERROR = '{"type": "Error"}'

claims, admin = Claims(), load("admin")
maintenance, recovery, schedules = Maintenance(), Recovery(), StoredSchedules()
app = App()


@app.task(name="noop")
def noop() -> None:
    """Do nothing, for nobody runs it."""


def by_hand(conn: Connection, statement: str, *jobs: int) -> list[int]:
    """Do what the command line does with jobs; return those that it concerned."""
    return [
        row[0]
        for row in conn.execute(
            admin[statement], {"ids": list(jobs), "args": None, **current_actor().parameters}
        ).fetchall()
    ]


@dataclass
class Known:
    """A job as it has to be."""

    id: int
    priority: int
    state: str = "available"
    attempt: int = 0
    crashes: int = 0
    node_losses: int = 0
    token: int | None = None
    node: int | None = None
    #: Whether somebody wants it cancelled.
    cancelled: bool = False
    #: Its place in the queue; None: it has drawn a new one that the database is yet to tell.
    order: int | None = None
    #: Scheduled: whether that is over.
    due: bool = False
    key: str | None = None
    is_hook: bool = False

    def free(self, state: str) -> None:
        """Leave the claim for another state."""
        self.state, self.token, self.node = state, None, None

    def end(self, state: str) -> None:
        self.free(state)
        self.key = None

    def schedule(self, delay: float) -> None:
        self.free("scheduled")
        self.due = delay <= 0

    def complete(self) -> None:
        self.end("completed")

    def go_on(self) -> None:
        pass

    def retry(self, delay: float = 0.0) -> None:
        if self.cancelled:
            self.end("cancelled")
        else:
            self.schedule(delay)

    def snooze(self) -> None:
        self.attempt -= 1
        self.schedule(0.0)

    def fail(self) -> None:
        self.end("cancelled" if self.cancelled else "failed")
        self.cancelled = False

    def release(self) -> None:
        self.attempt -= 1
        self.free("available")

    def charge(self) -> None:
        self.crashes += 1
        self.free("available")

    def lose(self) -> None:
        self.node_losses += 1
        self.attempt -= 1
        self.free("available")
        if self.node_losses >= MAX_LOSSES:
            self.end("failed")


@dataclass
class Claim:
    """A claim that was made, and may be over."""

    node: int
    token: int


def finish(state: str) -> Callable[[Connection, int, int], Any]:
    return lambda c, t, j: claims.end(c, t, j, state=state, error=ERROR, duration=1.0)


def retry(delay: float) -> Callable[[Connection, int, int], Any]:
    return lambda c, t, j: claims.retry(c, t, j, delay=delay, error=ERROR)


#: The writes of a claim: what is sent, and what becomes of a job that is the claim's.
WRITES: dict[str, tuple[Callable[[Connection, int, int], Any], Callable[[Known], None]]] = {
    "acknowledge": (lambda c, t, j: claims.acknowledge(c, t, [j]), Known.complete),
    "complete": (lambda c, t, j: claims.complete(c, t, j, duration=1.0, result="1"), Known.complete),
    "cancel": (finish("cancelled"), lambda job: job.end("cancelled")),
    "discard": (finish("discarded"), lambda job: job.end("discarded")),
    "retry": (retry(0.0), Known.retry),
    "retry later": (retry(LATER), lambda job: job.retry(LATER)),
    "snooze": (lambda c, t, j: claims.snooze(c, t, j, delay=0.0), Known.snooze),
    "fail": (lambda c, t, j: claims.fail(c, t, j, error=ERROR, hook=False), Known.fail),
    "release": (lambda c, t, j: claims.release(c, t, [j]), Known.release),
    "charge": (lambda c, t, j: recovery.record_crash(c, t, j, delay=0.0, error=ERROR), Known.charge),
    "lose": (lambda c, t, j: len(recovery.record_node_loss(c, t, j, MAX_LOSSES, ERROR)), Known.lose),
    "progress": (lambda c, t, j: claims.progress(c, t, j, "{}"), Known.go_on),
}


class Machine(RuleBasedStateMachine):
    """Two nodes' claims and whatever may happen to them, each step compared with the model."""

    conn: Connection

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute("TRUNCATE qworker.job, qworker.job_history, qworker.unique_key, qworker.cron")
        self.jobs: dict[int, Known] = {}
        self.claims: list[Claim] = []
        self.last_order = 0
        self.last_tick = 0
        self.began = float(int(time()))  # a tick is a whole second

    @initialize(priorities=st.lists(st.integers(0, 2), max_size=6), limit=st.integers(0, 4))
    def be_at_work(self, priorities: list[int], limit: int) -> None:
        schedules.declare(self.conn, 1, name="cron", task="noop", expression="* * * * *", timezone="UTC")
        for priority in priorities:
            self.enqueue(priority, None, later=False)
        self.claim(1, limit)

    one = st.randoms(use_true_random=False)
    some = precondition(lambda self: self.jobs and self.claims)

    def of(self, *states: str) -> list[Known]:
        return [job for job in self.jobs.values() if job.state in states]

    def a_job(self, chance: Random) -> Known:
        """Return any job that ever was; mostly one that is running."""
        running = self.of("running")
        return chance.choice(running if running and chance.random() < 0.7 else [*self.jobs.values()])

    def a_claim(self, chance: Random, job: Known) -> Claim:
        """Return any claim that ever was; mostly the one that has the job."""
        own = [claim for claim in self.claims if claim.token == job.token]
        return own[0] if own and chance.random() < 0.7 else chance.choice(self.claims)

    # Enqueueing

    @rule(priority=st.integers(0, 2), key=st.sampled_from([None, None, "a", "b"]), later=st.booleans())
    def enqueue(self, priority: int, key: str | None, *, later: bool) -> None:
        options: dict[str, Any] = {"unique": key} if key else {}
        job = noop.options(conn=self.conn, priority=priority, delay=LATER if later else 0, **options).enqueue()
        holder = next((known.id for known in self.jobs.values() if key and known.key == key), None)
        assert job.duplicate == (holder is not None)
        if holder is None:
            state = "scheduled" if later else "available"
            self.jobs[job.id] = Known(job.id, priority, state, key=key)
        else:
            assert job.id == holder

    @rule(step=st.integers(-1, 2), key=st.sampled_from([None, "a"]))
    def tick(self, step: int, key: str | None) -> None:
        """Enqueue a tick that nobody has enqueued, one that somebody has, or an older one."""
        tick = self.last_tick + step
        moment = self.began + 60.0 * tick
        won = schedules.tick(
            self.conn, JobSpec.of("noop", Options(), Options(priority=1, unique=key or False)), key,
            name="cron", tick=moment, expression="* * * * *", timezone="UTC",
        )  # fmt: skip
        assert (won is not None) == (tick > self.last_tick)
        if won is not None:
            self.last_tick = tick
            holder = next((known.id for known in self.jobs.values() if key and known.key == key), None)
            assert won.holder == holder
            self.find_new(holder is None, key=key)

    def find_new(self, count: int, *, is_hook: bool = False, priority: int = 1, key: str | None = None) -> None:
        """Take in jobs that a statement has made."""
        rows = self.conn.execute("SELECT id FROM qworker.job WHERE id <> ALL (%s)", ([*self.jobs],)).fetchall()
        assert len(rows) == count
        for (job,) in rows:
            self.jobs[job] = Known(job, priority, is_hook=is_hook, key=key)

    # A worker's

    @rule(node=st.sampled_from(NODES), limit=st.integers(1, 4))
    def claim(self, node: int, limit: int) -> None:
        """The most urgent first, and of those the ones that became available first."""
        token = len(self.claims) + 1
        rows = claims.claim(
            self.conn, node=node, token=token, queues=["default"] * 10, priorities=range(10), cursors=[0] * 10,
            limit=limit,
        )  # fmt: skip
        ready = sorted(self.of("available"), key=lambda job: (job.priority, job.order))
        assert {row[0] for row in rows} == {job.id for job in ready[:limit]}
        for row in rows:
            job = self.jobs[row[0]]
            job.state, job.node, job.token, job.attempt = "running", node, token, job.attempt + 1
        self.claims.append(Claim(node, token))

    @some
    @rule(write=st.sampled_from([*WRITES]), chance=one, again=st.booleans())
    def write(self, write: str, chance: Random, *, again: bool) -> None:
        """Whose claim it is may write, once; and nobody else."""
        job = self.a_job(chance)
        claim = self.a_claim(chance, job)
        send, become = WRITES[write]
        owns = job.state == "running" and job.token == claim.token
        assert bool(send(self.conn, claim.token, job.id)) == owns
        if owns:
            become(job)
        if again and write != "progress":
            assert not send(self.conn, claim.token, job.id)

    @some
    @rule(chance=one)
    def fail_and_tell(self, chance: Random) -> None:
        """A job that fails for good makes one job that tells of it, unless somebody wants it cancelled."""
        job = self.a_job(chance)
        claim = self.a_claim(chance, job)
        owns = job.state == "running" and job.token == claim.token
        assert bool(claims.fail(self.conn, claim.token, job.id, error=ERROR, hook=True, crashes=1)) == owns
        if owns:
            job.crashes += 1
            job.fail()
        self.find_new(int(owns and job.state == "failed"), is_hook=True, priority=job.priority)

    @some
    @rule(chance=one, write=st.sampled_from(["acknowledge", "release"]))
    def write_many(self, chance: Random, write: str) -> None:
        """In one statement, jobs of the claim and others."""
        claim = chance.choice(self.claims)
        jobs = chance.sample([*self.jobs.values()], chance.randint(0, len(self.jobs)))
        send = claims.acknowledge if write == "acknowledge" else claims.release
        own = [job for job in jobs if job.state == "running" and job.token == claim.token]
        assert claims.still_claimed(self.conn, claim.token, [job.id for job in jobs]) == {job.id for job in own}
        assert set(send(self.conn, claim.token, [job.id for job in jobs])) == {job.id for job in own}
        for job in own:
            WRITES[write][1](job)
        if write == "acknowledge":
            assert claims.already_archived(self.conn, claim.token, [job.id for job in own]) == {job.id for job in own}

    # A scheduler's

    @some
    @rule(chance=one)
    def recover_dead(self, chance: Random) -> None:
        """What a dead worker's claim holds goes back, but for what is excluded."""
        claim = chance.choice(self.claims)
        held = [job for job in self.of("running") if job.token == claim.token]
        reported = recovery.claim_jobs(self.conn, claim.node, claim.token)
        assert {job.id for job in reported} == {job.id for job in held}
        excluded = chance.sample(held, chance.randint(0, len(held)))
        freed = recovery.release_claim(self.conn, claim.node, claim.token, [job.id for job in excluded])
        assert set(freed) == {job.id for job in held} - {job.id for job in excluded}
        for job in held:
            if job not in excluded:
                job.release()

    @rule(node=st.sampled_from(NODES), reports=st.booleans())
    def lose_a_node(self, node: int, *, reports: bool) -> None:
        mine = [job for job in self.of("running") if job.node == node]
        assert len(recovery.rescue(self.conn, node, MAX_LOSSES, ERROR, ["noop"] if reports else [])) == len(mine)
        for job in mine:
            job.lose()
        given_up = [job for job in mine if job.state == "failed" and not job.is_hook]
        for priority in {job.priority for job in given_up} if reports else ():
            self.find_hooks(sum(job.priority == priority for job in given_up), priority)

    def find_hooks(self, count: int, priority: int) -> None:
        rows = self.conn.execute(
            "SELECT id FROM qworker.job WHERE id <> ALL (%s) AND priority = %s", ([*self.jobs], priority)
        ).fetchall()
        assert len(rows) == count
        for (job,) in rows:
            self.jobs[job] = Known(job, priority, is_hook=True)

    @rule(node=st.sampled_from(NODES))
    def reconcile(self, node: int) -> None:
        """What a node is told that it runs is what it runs."""
        reported = {(job.id, job.token) for job in recovery.running(self.conn, node, 0.0)}
        assert reported == {(job.id, job.token) for job in self.of("running") if job.node == node}

    @rule(far=st.booleans())
    def promote(self, *, far: bool) -> None:
        ready = [job for job in self.of("scheduled") if job.due or far]
        assert len(maintenance.promote(self.conn, 0.0, at=time() + 2 * LATER if far else None)) == len(ready)
        for job in ready:
            job.state, job.order = "available", None

    @rule()
    def expire(self) -> None:
        """Jobs that were cancelled while they ran, and came back."""
        unwanted = [job for job in self.of("available", "scheduled") if job.cancelled]
        assert len(maintenance.expire(self.conn)) == len(unwanted)
        for job in unwanted:
            job.end("cancelled")

    # By hand

    @some
    @rule(chance=one)
    def cancel(self, chance: Random) -> None:
        job = self.a_job(chance)
        concerned = by_hand(self.conn, "cancel", job.id)
        assert bool(concerned) == (job.state in {"available", "scheduled", "running"})
        if job.state == "running":
            job.cancelled = True
        elif concerned:
            job.end("cancelled")

    @precondition(lambda self: self.of("failed"))
    @rule(chance=one, discards=st.booleans())
    def decide_about_a_failed_one(self, chance: Random, *, discards: bool) -> None:
        job = chance.choice(self.of("failed"))
        assert by_hand(self.conn, "discard" if discards else "retry", job.id) == [job.id]
        if discards:
            job.end("discarded")
        else:
            job.free("available")
            job.attempt = job.crashes = job.node_losses = 0
            job.cancelled, job.order = False, None

    # What is always so

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        """Each once, with its claim, its counts and its place; a new place is behind all that were drawn before."""
        rows = self.conn.execute(
            "SELECT id, state::text, attempt, crashes, node_losses, token, node, cancel_requested_at IS NOT NULL, seq"
            " FROM qworker.job"
            " UNION ALL"
            " SELECT id, state::text, attempt, crashes, node_losses, NULL, NULL, NULL, NULL FROM qworker.job_history"
        ).fetchall()
        assert sorted(row[0] for row in rows) == sorted(self.jobs)
        assigned = self.last_order
        for id_, state, attempt, crashes, node_losses, token, node, cancelled, seq in rows:
            job = self.jobs[id_]
            assert (state, attempt, crashes, node_losses) == (job.state, job.attempt, job.crashes, job.node_losses)
            assert (token, node) == (job.token, job.node)
            if state in {"available", "scheduled", "running"}:
                assert cancelled == job.cancelled
            if state in {"available", "running"}:
                if job.order is None:
                    job.order = seq
                    assert seq > assigned
                    self.last_order = max(seq, self.last_order)
                assert seq == job.order

    @invariant()
    def keys_are_held_by_jobs_that_are_not_over(self) -> None:
        rows = self.conn.execute("SELECT key, job_id FROM qworker.unique_key").fetchall()
        assert {job: key for key, job in rows} == {job.id: job.key for job in self.jobs.values() if job.key}


@pytest.mark.timeout(400)  # a failure takes Hypothesis up to five minutes to put in few words
def test_a_jobs_life_is_that_of_the_model(database: Database) -> None:
    class Here(Machine):
        pass

    with connect(database.dsn, "test") as conn:
        Here.conn = conn
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


# Many at once


class Session(threading.Thread):
    """Does at random what workers, schedulers and people do, beside others; nothing that it asks for may fail."""

    def __init__(self, number: int, dsn: str, ids: list[int], over: threading.Event) -> None:
        super().__init__(name=f"session {number}", daemon=True)
        self.number = number
        self.dsn = dsn
        #: Every job there is, for all sessions.
        self.ids = ids
        self.over = over
        self.random = Random(number)
        self.held: list[tuple[int, list[int]]] = []
        self.acknowledged: list[int] = []
        self.tokens = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with connect(self.dsn, "test") as conn:
                while not self.over.is_set():
                    self.random.choice(
                        [self.enqueue, self.claim, self.claim, self.settle, self.settle, self.look, self.meddle]
                    )(conn)
        except BaseException as error:  # noqa: BLE001 - for the test to raise
            self.error = error

    def enqueue(self, conn: Connection) -> None:
        """Several in one transaction, with keys in any order."""
        with conn.transaction():
            for _ in range(self.random.randint(1, 3)):
                job = noop.options(conn=conn, priority=self.random.randrange(10)).enqueue()
                self.ids.append(job.id)
        job = noop.options(conn=conn, unique=self.random.choice("abc")).enqueue()
        if not job.duplicate:
            self.ids.append(job.id)

    def claim(self, conn: Connection) -> None:
        self.tokens += 1
        token = 1_000_000 * self.number + self.tokens
        rows = claims.claim(
            conn, node=1 + self.number % 2, token=token, queues=["default"] * 10, priorities=range(10),
            cursors=[0] * 10, limit=self.random.randint(1, 20),
        )  # fmt: skip
        if rows:
            self.held.append((token, [row[0] for row in rows]))

    def settle(self, conn: Connection) -> None:
        if not self.held:
            return
        token, ids = self.held.pop(self.random.randrange(len(self.held)))
        self.random.shuffle(ids)
        half = len(ids) // 2
        self.acknowledged += claims.acknowledge(conn, token, ids[:half])
        for job in ids[half:]:
            write = self.random.choice(["release", "retry", "snooze", "fail", "charge", "lose", "complete"])
            with conn.transaction():
                if WRITES[write][0](conn, token, job) and write == "complete":
                    self.acknowledged.append(job)

    def look(self, conn: Connection) -> None:
        maintenance.promote(conn, 0.0)
        maintenance.expire(conn)
        if self.random.random() < 0.1:
            recovery.rescue(conn, 1 + self.random.randrange(2), 1000, ERROR, ["noop"])

    def meddle(self, conn: Connection) -> None:
        jobs = self.random.sample(self.ids, min(5, len(self.ids)))
        by_hand(conn, self.random.choice(["cancel", "retry", "discard"]), *jobs)


def test_sessions_beside_each_other_neither_deadlock_nor_settle_a_job_twice(database: Database) -> None:
    ids: list[int] = []
    over = threading.Event()
    sessions = [Session(number, database.dsn, ids, over) for number in range(1, 7)]
    for session in sessions:
        session.start()
    over.wait(4.0)
    over.set()
    for session in sessions:
        session.join(20.0)
        assert not session.is_alive()
        if session.error is not None:
            raise session.error
    acknowledged = [job for session in sessions for job in session.acknowledged]
    assert len(acknowledged) == len(set(acknowledged)) > 0
    with connect(database.dsn, "test") as conn:
        completed = conn.execute("SELECT id FROM qworker.job_history WHERE state = 'completed'").fetchall()
        assert sorted(row[0] for row in completed) == sorted(acknowledged)
        here = conn.execute("SELECT id FROM qworker.jobs WHERE task = 'noop' AND args = '{}'").fetchall()
        assert sorted(row[0] for row in here) == sorted(ids)
        orphans = conn.execute(
            "SELECT key FROM qworker.unique_key AS k WHERE NOT EXISTS (SELECT FROM qworker.job WHERE id = k.job_id)"
        ).fetchall()
        assert orphans == []
