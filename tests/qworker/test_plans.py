"""Hot statements keep their plans: on the statistics of an empty table, among 100,000 dead rows, and on none at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from time import time

import psycopg
import pytest
from psycopg.types.json import Jsonb

from qworker.actor import current_actor
from qworker.claims import Claims
from qworker.db.prepared import PreparedStatement
from qworker.db.statements import load
from qworker.maintenance import Maintenance
from qworker.migrations import migrate
from qworker.options import PRIORITIES, Options
from qworker.recovery import Recovery
from qworker.registry import NO_CTID, Heartbeat, Registry
from qworker.spec import JobSpec
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.scheduler.watermarks.scrub import SLICE_MIN
from tests.database import Database
from tests.qworker.plans import ALONE, CHURN, DEAD, FILL, GONE, LIVE, TOKEN, VACUUM, WORKED, Connection, Session

#: Planned when all work was done and the tables were vacuumed and analyzed; then 124,000 jobs came.
EMPTY = "empty"
#: Planned on good statistics; a held snapshot keeps 100,000 dead rows in front of the living in every index.
HELD = "held"
#: Planned on full tables that were never analyzed.
NONE = "none"

ERROR = '{"type": "Error"}'
PAIRS = [queue for queue in ("default", "other") for _ in range(10)], [*range(10), *range(10)]
BATCH = range(1, 65)
#: The same jobs, and those of the history: the number of the attempt, and the type of its error.
LEFT = {job: (1, "E") for number in BATCH for job in (number, -number)}

claims, express = Claims(), PreparedStatement(load("enqueue")["prepared"])
maintenance, recovery, registry = Maintenance(), Recovery(), Registry()

#: Where the living node's row stands, in each database.
positions: dict[str, str] = {}


def recently() -> float:
    """Return a time before all that lives was made, on however slow a machine, and after all that is dead."""
    return time() - 1_800


def claim(conn: Connection, cursor: int) -> int:
    rows = claims.claim(
        conn, node=LIVE, token=TOKEN - 1, queues=PAIRS[0], priorities=PAIRS[1], cursors=[cursor] * 20, limit=len(BATCH)
    )
    return len(rows)


def beat(conn: Connection) -> Heartbeat:
    """Return what the node says, once there is one; all that is watched is undone, so its row never moves."""
    position = positions.get(conn.info.dbname) or registry.find_ctid(conn, LIVE) or NO_CTID
    if position != NO_CTID:
        positions[conn.info.dbname] = position
    return Heartbeat(Jsonb({}), None, position)


def renew(conn: Connection) -> int:
    return int(registry.renew(conn, LIVE, beat(conn)) is not None)


def look(conn: Connection, *, thorough: bool = False) -> int:
    sight = registry.poll(
        conn, LIVE, queues=PAIRS[0], priorities=PAIRS[1], watermarks=[GONE] * 20,
        scrub=(GONE // 2, GONE // 2 + SLICE_MIN), due_from=recently(), since=recently(), with_writers=True,
        thorough=thorough, heartbeat=beat(conn),
    )  # fmt: skip
    return len(sight.cancels) + sum([sight.renewed, sight.waiting(), sight.has_running, sight.expired])


def cancel(conn: Connection, *jobs: int) -> int:
    return len(conn.execute(load("admin")["cancel"], {"ids": list(jobs), **current_actor().parameters}).fetchall())


def enqueue(conn: Connection, statement: str, key: str = "", delay: float | None = None) -> int:
    order = JobSpec.of("noop", Options(), Options() if delay is None else Options(delay=delay))
    rows = conn.execute(load("enqueue")[statement], {**order.parameters, "args": "{}", "key": key}).fetchall()
    return len(rows)


def enqueue_fast(conn: Connection) -> int:
    row = express.send(conn, [b"noop", b"default", b"5", None, b"{}"])
    return 1 if row and row[0] else 0


def wake(conn: Connection) -> int:
    return len(conn.execute(load("enqueue")["wake"], {"queue": "default"}).fetchall())


def set_idle(conn: Connection, node: int, *, idle: bool) -> int:
    registry.set_idle(conn, node, idle=idle)
    return 1


@dataclass(frozen=True)
class Case:
    """A statement as it is called, and what it may take."""

    name: str
    call: Callable[[Connection], int]
    #: What the call returns: jobs taken, moved or seen.
    found: int
    #: The indexes that may serve it.
    indexes: set[str]
    #: Rows and pages looked at, at most.
    rows: int
    pages: int
    #: Whether it is made so rarely, or for so small a share of the time, that it may walk over what a snapshot holds.
    rare: bool = False


BY_ID, BY_CLAIM = {"job_pkey"}, {"job_running", "job_pkey"}
ENDING = {"job_pkey", "unique_key_job"}
LOSING = {*BY_CLAIM, *ENDING}
EXPIRING = {"job_expiring", "job_cancelling", *ENDING}
LOOKING = {
    "node_pkey",
    "stack_request_pkey",
    "live_log_pkey",
    "paused_node_pkey",
    "job_pkey",
    "job_ready",
    "job_due",
    "job_running",
    "job_cancelling",
    "job_expiring",
    "operation_running",
    "pg_database_datname_index",
    "queue_pkey",
}
UNFINISHED = {"job_ready", "job_running", "job_retrying"}
HISTORY = {f"job_history_{day:02}_id_idx" for day in range(32)}
KEYS = {"unique_key_pkey", "unique_key_job", "job_pkey"}

CASES = [
    # A worker's
    Case("claim", lambda c: claim(c, GONE), 64, {"job_ready", "job_pkey"}, 128, 1_500),
    Case("acknowledge", lambda c: len(claims.acknowledge(c, TOKEN, BATCH)), 64, ENDING, 256, 1_000),
    Case(
        "finish",
        lambda c: len(claims.end(c, TOKEN, 1, state="cancelled", error=ERROR, duration=1.0)),
        1,
        ENDING,
        4,  # the key is locked before it is deleted: somebody else's lock is not waited for
        60,
    ),
    Case("retry", lambda c: len(claims.retry(c, TOKEN, 1, delay=5.0, error=ERROR)), 1, ENDING, 3, 60),
    Case("retry, cancelled", lambda c: len(claims.retry(c, TOKEN, 100, delay=5.0, error=ERROR)), 1, ENDING, 4, 60),
    Case("snooze", lambda c: len(claims.snooze(c, TOKEN, 1, delay=5.0)), 1, BY_ID, 2, 60),
    Case("fail", lambda c: len(claims.fail(c, TOKEN, 1, error=ERROR, hook=True)), 1, ENDING, 6, 60),
    Case("release", lambda c: len(claims.release(c, TOKEN, BATCH)), 64, BY_ID, 128, 1_500),
    Case("held", lambda c: len(claims.still_claimed(c, TOKEN, BATCH)), 64, BY_ID, 64, 500),
    # 32 indexes, and before PostgreSQL 17 each is descended anew for each id.
    Case("settled", lambda c: len(claims.already_archived(c, TOKEN, [-job for job in BATCH])), 64, HISTORY, 64, 5_000),
    Case("progress", lambda c: len(claims.progress(c, TOKEN, 1, "{}")), 1, BY_ID, 2, 60),
    # A scheduler's, for its own node
    Case("renew", renew, 1, set(), 1, 20),
    Case("set_idle, asleep", lambda c: set_idle(c, DEAD, idle=True), 1, {"node_pkey"}, 3, 50),
    Case("set_idle, awake", lambda c: set_idle(c, LIVE, idle=False), 1, set(), 1, 30),
    # The other nodes' beats stand in a table of which a snapshot keeps a page for each minute.
    Case("look", look, 13, LOOKING, 100, 450),
    Case("look, thorough", lambda c: look(c, thorough=True), 14, LOOKING, 200, 250, rare=True),
    Case("running", lambda c: len(recovery.running(c, LIVE, recently())), 1_000, {"job_running"}, 1_000, 100),
    Case("token_jobs", lambda c: len(recovery.claim_jobs(c, LIVE, TOKEN)), 256, {"job_running"}, 1_000, 100, rare=True),
    Case(
        "release_token",
        lambda c: len(recovery.release_claim(c, LIVE, TOKEN, [1])),
        255,
        BY_CLAIM,
        1_300,
        4_000,
        rare=True,
    ),
    # As `settled`; and 64 of the jobs.
    Case("left", lambda c: len(recovery.left(c, TOKEN, LEFT)), 64, HISTORY | {"job_pkey"}, 192, 20_000, rare=True),
    Case("charge", lambda c: recovery.record_crash(c, TOKEN, 1, delay=5.0, error=ERROR), 1, BY_ID, 2, 60),
    Case("lose", lambda c: len(recovery.record_node_loss(c, TOKEN, 1, 3, ERROR, ["noop"])), 1, LOSING, 10, 60),
    # A scheduler's, for all
    Case("promote", lambda c: len(maintenance.promote(c, recently())), 100, {"job_due", "job_pkey"}, 300, 3_000),
    Case("rescue", lambda c: len(recovery.rescue(c, DEAD, 3, ERROR, ["noop"])), 1_000, LOSING, 2_100, 25_000),
    Case("expire", lambda c: len(maintenance.expire(c)), 109, EXPIRING, 300, 2_000, rare=True),
    Case(
        "discard_failed",
        lambda c: len(maintenance.discard_failed(c, 14 * 86_400.0)),
        200,
        {"job_failed", "job_pkey"},
        450,
        2_500,
        rare=True,
    ),
    Case("unfinished", lambda c: registry.unfinished(c, ["idle"], PRIORITIES), 0, UNFINISHED, 3_000, 1_000, rare=True),
    Case("forget_keys", maintenance.delete_expired_keys, 0, {"unique_key_expiring"}, 100, 100),
    Case(
        "delete_unheld_keys", lambda c: maintenance.delete_unheld_keys(c, 0) or 0, 1_000, KEYS, 2_100, 10_000, rare=True
    ),
    # What nobody writes; nothing is found.
    Case("restart_unclaimed", lambda c: len(recovery.restart_unclaimed(c)), 0, BY_CLAIM, 3_000, 1_000, rare=True),
    Case(
        "old_claims", lambda c: len(recovery.old_claims(c, LIVE, 86_400.0)), 0, {"job_running"}, 1_000, 500, rare=True
    ),
    Case("renumber", lambda c: len(maintenance.renumber(c, *PAIRS)), 0, {"job_ready", "job_pkey"}, 10, 200),
    Case("end_invalid", lambda c: len(maintenance.end_invalid(c)), 0, {"job_failed", *ENDING}, 10, 50, rare=True),
    Case(
        "date_failures", lambda c: len(maintenance.date_failures(c)), 0, {"job_failed", "job_pkey"}, 10, 50, rare=True
    ),
    # A client's
    Case("express", enqueue_fast, 1, set(), 6, 60),
    Case("enqueue", lambda c: enqueue(c, "enqueue"), 1, set(), 6, 60),
    Case("enqueue_later", lambda c: enqueue(c, "enqueue_later", delay=5.0), 1, set(), 6, 60),
    Case("enqueue_unique", lambda c: enqueue(c, "enqueue_unique", "new"), 1, KEYS, 10, 60),
    Case("enqueue_unique, taken", lambda c: enqueue(c, "enqueue_unique", "key 24001"), 1, KEYS, 10, 60),
    Case("wake", wake, 1, set(), 3, 20),
    Case("cancel", lambda c: cancel(c, 1, 24_001, 24_002), 3, ENDING, 10, 100),
]


@contextmanager
def created(server: EmbeddedPostgres) -> Iterator[Database]:
    database = Database.create(server, f"qworker_plans_{token_hex(4)}")
    try:
        with psycopg.connect(database.dsn) as conn:
            migrate(conn)
            conn.execute(ALONE)
        yield database
    finally:
        database.drop(server)


@pytest.fixture(scope="module")
def held(postgres_server: EmbeddedPostgres) -> Iterator[Session]:
    with created(postgres_server) as database, Session(database) as session:
        conn = database.connect()
        conn.execute(FILL)
        conn.execute(VACUUM)
        reader = database.connect(autocommit=False)
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT FROM qworker.job LIMIT 1")
        conn.execute(CHURN)
        yield session


@pytest.fixture(scope="module")
def none(postgres_server: EmbeddedPostgres) -> Iterator[Session]:
    with created(postgres_server) as database, Session(database) as session:
        database.connect().execute(FILL)
        yield session


@pytest.fixture(scope="module")
def empty(postgres_server: EmbeddedPostgres, held: Session, none: Session) -> Iterator[Session]:
    # The last: thousands of changes to the catalogues, in any database, make a session that has not followed forget all
    # its plans (sinvaladt.c), and they would be made anew on full tables.
    with created(postgres_server) as database, Session(database) as session:
        conn = database.connect()
        conn.execute(WORKED)
        conn.execute(VACUUM)
        for case in CASES:
            session.watch(case.call)
        conn.execute(FILL)
        yield session


@pytest.fixture
def session(situation: str, request: pytest.FixtureRequest) -> Session:
    session = request.getfixturevalue(situation)
    assert isinstance(session, Session)
    return session


@pytest.mark.parametrize("situation", [EMPTY, HELD, NONE])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hot_statement_keeps_to_its_indexes_and_looks_at_few_rows(
    case: Case, situation: str, session: Session
) -> None:
    session.watch(case.call)  # what it has to look up in the catalogues does not count
    plan, found = session.watch(case.call)
    assert found == case.found
    assert plan.sequential <= {"node", "idle_node", "job_seq"}  # a row for each node, and one for the sequence
    assert plan.indexes <= case.indexes
    assert bool(plan.indexes) == bool(case.indexes)
    assert plan.rows <= case.rows
    assert plan.pages <= case.pages or (case.rare and situation == HELD)


def test_plans_made_for_empty_tables_are_still_in_use_when_they_are_full(empty: Session, none: Session) -> None:
    assert empty.watch(look)[0].expected == 1
    assert none.watch(look)[0].expected > 100
