"""Reads that stop at a number of rows take them from an index, wherever the planner expects to find them soon."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from secrets import token_hex

import psycopg
import pytest

from qworker.db.statements import load
from qworker.error_groups import ErrorGroups
from qworker.fingerprint import to_hex
from qworker.migrations import migrate
from qworker.queues import Queues
from qworker.statistics import Statistics
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.plans import ALONE, FILL, VACUUM, Connection, Session

# A queue that is paused holds no jobs. As behind PgBouncer, the session allows sequential scans, and the planner takes
# them to be cheaper than an index, as it does for some of these reads on millions of jobs: only an order keeps it from
# them.
MORE = """
INSERT INTO qworker.queue (name, paused_at, paused_by)
VALUES ('vacant', now(), 'somebody'), ('other', now(), 'somebody');
"""

# A group without message, of which one job has failed, and another of the same type with all other failed jobs.
GROUPS = """
INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, queues, samples)
SELECT number, 1, now(), now(), 1, 'noop', 'Boom', '{}', '{}' FROM (VALUES (0), (5)) AS g (number);
UPDATE qworker.job SET fingerprint = CASE id WHEN 4000 THEN 7 ELSE 5 END WHERE state = 'failed';
"""

# Groups that occurred every ten minutes of two days, but for a day in between.
OCCURRED = """
INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, queues, samples)
SELECT (1::bigint << 40) + number, 1, now() - interval '3 days', now(), 1, 'noop', 'Boom', '{}', '{}'
  FROM generate_series(1, 20) AS number;
INSERT INTO qworker.error_stat (fingerprint, at, count)
SELECT (1::bigint << 40) + number, date_bin('10 minutes', now(), '2000-01-01') - interval '10 minutes' * part, 1
  FROM generate_series(1, 20) AS number CROSS JOIN generate_series(0, 287) AS part
 WHERE part NOT BETWEEN 72 AND 215;
"""


@pytest.fixture(scope="module")
def session(postgres_server: EmbeddedPostgres) -> Iterator[Session]:
    database = Database.create(postgres_server, f"qworker_reads_{token_hex(4)}")
    try:
        with psycopg.connect(database.dsn) as conn:
            migrate(conn)
            conn.execute(ALONE)
            conn.execute(FILL)
            conn.execute(MORE)
            conn.execute(GROUPS)
            conn.execute(OCCURRED)
        with Session(database) as session:
            database.connect().execute(VACUUM)
            session.configure(enable_seqscan="on", seq_page_cost="0", cpu_tuple_cost="0.0001", enable_sort="off")
            yield session
    finally:
        database.drop(postgres_server)


def backlog(conn: Connection, queue: str | None) -> int:
    row = conn.execute("SELECT qworker.backlog(%s)", (queue,)).fetchone()
    return int(row[0]) if row else 0


def ahead(conn: Connection) -> int:
    parameters = {"queue": "default", "priority": 9, "seq": 10**9, "limit": 100, "before": ["vacant", "other"]}
    row = conn.execute(load("explanation")["ahead"], parameters).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize(
    ("read", "found", "rows"),
    [
        (lambda c: sum(one.due for one in Statistics().load(c, most=1_000)), 100, 4_000),
        (lambda c: len(Queues().waiting(c)), 1, 1_000),
        (lambda c: backlog(c, "vacant"), 0, 1_000),
        (ahead, 100, 1_000),
    ],
    ids=["load", "waiting", "backlog", "ahead"],
)
def test_a_read_that_stops_early_does_not_walk_over_the_table(
    session: Session, read: Callable[[Connection], int], found: int, rows: int
) -> None:
    session.watch(read)
    plan, result = session.watch(read)
    assert result == found
    assert plan.indexes & {"job_ready", "job_due"}
    assert "job" not in plan.sequential
    assert plan.rows <= rows


def test_jobs_of_other_groups_are_not_read_for_a_group_without_message(session: Session) -> None:
    def read(conn: Connection) -> int:
        return ErrorGroups().count_failed(conn, to_hex(0))

    session.watch(read)
    plan, result = session.watch(read)
    assert result == 1
    assert "job_fingerprint" in plan.indexes
    assert plan.rows < 50


@pytest.mark.parametrize(("ago", "found", "rows"), [(6, 10, 1_000), (24, 0, 200)])
def test_counts_of_a_time_are_looked_up_group_by_group(session: Session, ago: int, found: int, rows: int) -> None:
    """A hashed subquery would read the counts of all groups: 2,880 of the whole time here."""
    end = datetime.now(UTC) - timedelta(hours=ago)

    def read(conn: Connection) -> int:
        return len(ErrorGroups().find(conn, between=(end - timedelta(hours=3), end), bins=6, limit=10))

    session.watch(read)
    plan, result = session.watch(read)
    assert result == found
    assert "error_stat_pkey" in plan.indexes
    assert "error_stat" not in plan.sequential
    assert plan.rows <= rows
