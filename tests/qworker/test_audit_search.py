"""The audit is searched in indexes, whatever is searched for, and finds what a walk over all entries would find."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from secrets import token_hex
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.audit import Audit, AuditEntry
from qworker.db.connection import connect
from qworker.migrations import migrate
from qworker.rights import Kind, statements
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.conftest import Query
from tests.qworker.plans import ALONE, Session

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LONG = "state:failed args.text:" + "x" * 8000
FINGERPRINT = "00000000000000aa"
ADD = "INSERT INTO qworker.audit (at, actor, via, action, target, jobs) VALUES (%s, %s, 'api', %s, %s::jsonb, %s)"

# 100,000 entries of a year: of each ten, one is about the queue, one about the job 42, one about the group of errors,
# and seven about a job each. Every 20,000th actor is a rare one. Then 2,000 that have retried 50 jobs each.
FILL = """
INSERT INTO qworker.audit (at, actor, via, action, target, jobs)
SELECT now() - make_interval(secs => 300 * (100000 - n)),
       CASE WHEN n % 20000 = 1 THEN 'rare' ELSE 'user ' || n % 97 END, 'web',
       CASE n % 10 WHEN 0 THEN CASE n % 20 WHEN 0 THEN 'queue.pause' ELSE 'queue.resume' END WHEN 2 THEN 'error.mute'
                   ELSE (ARRAY['job.retry', 'job.cancel', 'job.discard', 'job.again'])[n / 10 % 4 + 1] END,
       CASE n % 10 WHEN 0 THEN '{"queues": ["mail"]}' WHEN 1 THEN '{"jobs": [42]}'
                   WHEN 2 THEN '{"errors": ["00000000000000aa"]}'
                   ELSE jsonb_build_object('jobs', jsonb_build_array(n)) END, 1
  FROM generate_series(1, 100000) AS n;
INSERT INTO qworker.audit (at, actor, via, action, target, jobs)
SELECT now() - make_interval(secs => n), 'operator', 'operation', 'job.retry',
       jsonb_build_object('jobs', (SELECT jsonb_agg(1000000 + 50 * n + i) FROM generate_series(0, 49) AS i)), 50
  FROM generate_series(1, 2000) AS n;
INSERT INTO qworker.audit (at, actor, via, action, target, jobs)
VALUES (now() - interval '100 days', 'rare', 'cli', 'schedule.run', '{"schedules": ["report"], "jobs": [42]}', 1),
       (now() - interval '100 days', 'rare', 'cli', 'operation.retry', '{"operation": 1, "filter": "state:failed"}',
        NULL);
"""

#: What is searched for, how many of at most 50 entries it finds, and how many rows of tables and indexes it may read.
SEARCHES: dict[str, tuple[dict[str, Any], int, int]] = {
    "all": ({}, 50, 60),
    "old": ({"until": NOW - 300 * DAY}, 50, 60),
    "period": ({"since": NOW - 300 * DAY, "until": NOW - 300 * DAY + timedelta(hours=1)}, 12, 40),
    "action": ({"action": "queue.pause"}, 50, 100),
    "kind": ({"action": "job"}, 50, 400),
    "unknown-action": ({"action": "nothing"}, 0, 30),
    "action-old": ({"action": "job.retry", "until": NOW - 300 * DAY}, 50, 100),
    "actor": ({"actor": "user 7"}, 50, 500),
    "rare-actor": ({"actor": "rare"}, 7, 60),
    "actor-action": ({"actor": "rare", "action": "schedule"}, 1, 30),
    "job": ({"job": 99_999}, 1, 30),
    "unknown-job": ({"job": 10**9}, 0, 30),
    "one-of-many": ({"job": 1_000_077}, 1, 30),
    "one-of-many-by": ({"job": 1_000_077, "actor": "user 7"}, 0, 30),
    "frequent-job": ({"job": 42}, 50, 400),
    "frequent-job-rarely": ({"job": 42, "actor": "rare"}, 6, 60),
    "frequent-job-below": ({"job": 42, "below": 50_000}, 50, 400),
    "frequent-job-schedule": ({"job": 42, "schedule": "report", "actor": "rare"}, 1, 30),
    "queue": ({"queue": "mail"}, 50, 250),
    "queue-unknown-actor": ({"queue": "mail", "actor": "rare"}, 0, 30),
    "queue-other-kind": ({"queue": "mail", "action": "job"}, 0, 30),
    "queue-old": ({"queue": "mail", "until": NOW - 300 * DAY, "below": 90_000}, 50, 250),
    "queue-schedule": ({"queue": "mail", "schedule": "report"}, 0, 30),
    "error": ({"error": FINGERPRINT}, 50, 200),
    "filter": ({"filter": "state:failed"}, 1, 30),
}


@pytest.fixture(scope="module")
def sessions(postgres_server: EmbeddedPostgres) -> Iterator[dict[str, Session]]:
    """Sessions that have planned everything while the audit was empty, and that plan now, also as a caller's would."""
    database = Database.create(postgres_server, f"qworker_audit_{token_hex(4)}")
    try:
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            migrate(conn)
            conn.execute(ALONE)
            with Session(database) as early, Session(database) as late, Session(database) as foreign:
                for wanted, _, _ in SEARCHES.values():
                    early.watch(lambda conn, wanted=wanted: len(Audit().find(conn, **wanted)))  # type: ignore[misc]
                conn.execute(FILL)
                conn.execute("VACUUM (ANALYZE) qworker.audit, qworker.audit_key")
                foreign.configure(enable_seqscan="on", enable_bitmapscan="on", plan_cache_mode="auto")
                yield {"early": early, "late": late, "foreign": foreign}
    finally:
        database.drop(postgres_server)


@pytest.mark.parametrize("name", ["early", "late", "foreign"])
@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_reads_about_what_it_returns(sessions: dict[str, Session], name: str, search: str) -> None:
    wanted, found, rows = SEARCHES[search]
    plan, result = sessions[name].watch(lambda conn: len(Audit().find(conn, **wanted)))
    assert result == found
    assert not plan.sequential & {"audit", "audit_key"}
    assert plan.rows <= rows
    assert plan.pages <= 10 * rows


def random_target(random: Random) -> tuple[dict[str, Any], int | None]:
    """Return the target of an entry, and its number of jobs."""
    match random.randrange(5):
        case 0:
            return {"queues": random.sample(["mail", "reports", "a=b"], random.randint(1, 2))}, None
        case 1:
            return {"errors": [FINGERPRINT]}, None
        case 2:
            return {"operation": 1, "filter": random.choice([LONG, "state:failed"])}, None
        case 3:
            return {"schedules": ["report"], "jobs": [random.randint(1, 20)]}, 1
        case _:
            jobs = sorted(random.sample(range(1, 21), random.choice([1, 2, 10, 11, 18])))
            return {"jobs": jobs}, len(jobs)


@pytest.fixture
def recorded(app: App, query: Query, database: Database) -> list[AuditEntry]:
    """Entries of any kind, four of them at a time; newest first."""
    random = Random(5)
    actions = ["job.retry", "job", "jobs.retry", "queue.pause", "error.mute"]
    for number in range(400):
        target, jobs = random_target(random)
        actor = random.choice(["alice", "bob", "jobs=1", "x" * 150])
        query(
            ADD + " RETURNING id",
            NOW - (100 - number // 4) * DAY,
            actor,
            random.choice(actions),
            psycopg.types.json.Jsonb(target),
            jobs,
        )
    found = app.admin.audit(limit=1000)
    assert len(found) == 400
    assert found == sorted(found, key=lambda entry: (entry.at, entry.id), reverse=True)
    return found


def expected(entry: AuditEntry, wanted: dict[str, Any]) -> bool:
    """Return whether an entry matches."""
    kinds = {"job": "jobs", "queue": "queues", "schedule": "schedules", "error": "errors"}
    tests: dict[str, Callable[[Any], bool]] = {
        "filter": lambda value: entry.target.get("filter") == value,
        "actor": lambda value: entry.actor == value,
        "action": lambda value: entry.action == value or entry.action.startswith(value + "."),
        "since": lambda value: entry.at >= value,
        "until": lambda value: entry.at < value,
    }
    return all(
        wanted[name] in entry.target.get(kinds[name], ()) if name in kinds else tests[name](wanted[name])
        for name in wanted
    )


@pytest.mark.parametrize("pooled", [False, True], ids=["session", "caller"])
def test_a_search_finds_what_a_walk_finds(recorded: list[AuditEntry], database: Database, pooled: bool) -> None:
    choices: dict[str, tuple[Any, ...]] = {
        "job": (None, 1, 20), "queue": (None, "mail", "a=b"), "schedule": (None, "report"),
        "error": (None, FINGERPRINT), "filter": (None, LONG), "actor": (None, "alice", "jobs=1", "x" * 150),
        "action": (None, "job", "queue.pause"), "since": (None, NOW - 70 * DAY), "until": (None, NOW - 20 * DAY),
    }  # fmt: skip
    hits = 0
    with psycopg.connect(database.dsn) if pooled else connect(database.dsn, "test", writable=False) as conn:
        for number, values in enumerate(product(*choices.values())):
            wanted = {name: value for name, value in zip(choices, values, strict=True) if value is not None}
            if len(wanted) > 3 and number % 7:
                continue
            matching = [entry for entry in recorded if expected(entry, wanted)]
            assert Audit().find(conn, limit=1000, **wanted) == matching, wanted
            hits += bool(matching)
            for at in (4, len(matching) - 1) if matching else ():
                before = matching[: at + 1][-1]
                rest = matching[matching.index(before) + 1 :]
                assert Audit().find(conn, limit=3, below=before.id, **wanted) == rest[:3], wanted
    assert hits > 100


def test_pages_go_on_where_an_entry_has_been_deleted(recorded: list[AuditEntry], app: App, query: Query) -> None:
    query("DELETE FROM qworker.audit WHERE id = %s RETURNING id", recorded[100].id)
    assert app.admin.audit(below=recorded[99].id, limit=3) == recorded[101:104]
    assert app.admin.audit(below=recorded[0].id * 1000, limit=3) == recorded[:3]
    assert app.admin.audit(below=recorded[-1].id - 1000) == []


def test_a_viewer_searches_and_nobody_but_the_owner_writes_keys(app: App, query: Query, database: Database) -> None:
    role = f"qworker_test_{token_hex(4)}"
    query(ADD + " RETURNING id", NOW, "alice", "job.retry", '{"jobs": [1]}', 1)
    query(ADD + " RETURNING id", NOW, "alice", "job.retry", f'{{"jobs": {list(range(50))}}}', 50)
    with database.connect() as conn:
        conn.execute(f"CREATE ROLE {role}".encode())
        try:
            for statement in statements(role, Kind.VIEWER):
                conn.execute(statement)
            with connect(database.dsn, "test", writable=False) as viewing:
                viewing.execute(f"SET ROLE {role}".encode())
                assert [entry.jobs for entry in Audit().find(viewing, job=1)] == [50, 1]
                assert [entry.jobs for entry in Audit().find(viewing, actor="alice")] == [50, 1]
            for statement in statements(role, Kind.ADMIN):
                conn.execute(statement)
            with connect(database.dsn, "test") as acting:
                acting.execute(f"SET ROLE {role}".encode())
                Audit().record(acting, "job.cancel", {"jobs": [1]}, 1)
                assert len(Audit().find(acting, job=1, action="job.cancel")) == 1
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    acting.execute("INSERT INTO qworker.audit_key VALUES ('jobs=2', '', 'job.cancel', now(), 1)")
        finally:
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
