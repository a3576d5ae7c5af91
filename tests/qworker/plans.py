"""What the server does for one statement, and tables on which a bad plan, or a walk over dead rows, shows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg

from qworker.db.connection import connect
from tests.database import Database

Connection = psycopg.Connection[tuple[Any, ...]]

#: A node that lives and one that is gone; a claim of the first.
LIVE, DEAD, TOKEN = 1, 2, 7_777_777_777_777_777_777
#: The last place in the queue of the jobs that `CHURN` leaves dead; those that live come behind it.
GONE = 100_000

# 124,000 jobs: 1 to 1000 run on the living node, the first 256 under TOKEN; 2,000 on the node that is gone; 1,000 have
# failed, 200 of them long ago; 20,000 are scheduled, 100 of them due; 100,000 are available, every tenth with a time to
# be over, 100 of them too late and 10 cancelled. 1,001 hold a unique key, one of them an available job.
FILL = """
INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds)
SELECT id, 'node ' || id, '1', '{default,other}', 2, 10 FROM generate_series(1, 3) AS id;
INSERT INTO qworker.idle_node VALUES (1, '{default,other}');

INSERT INTO qworker.job (id, seq, token, node, claimed_at, cancel_requested_at, state, attempt, holds_key, queue, task)
SELECT id, 100000 + id, CASE WHEN id <= 256 THEN 7777777777777777777 ELSE id END,
       CASE WHEN id <= 1000 THEN 1 ELSE 2 END, now(), CASE WHEN id % 100 = 0 THEN now() END, 'running', 1, true,
       'default', 'noop'
  FROM generate_series(1, 3000) AS id;

INSERT INTO qworker.job (id, seq, failed_at, state, attempt, queue, task)
SELECT id, 100000 + id, now() - CASE WHEN id <= 3200 THEN interval '30 d' ELSE interval '1 h' END, 'failed', 1,
       'default', 'noop'
  FROM generate_series(3001, 4000) AS id;

INSERT INTO qworker.job (id, seq, run_at, state, queue, task)
SELECT id, 100000 + id, now() + make_interval(secs => CASE WHEN id <= 4100 THEN -1 ELSE id END), 'scheduled',
       'default', 'noop'
  FROM generate_series(4001, 24000) AS id;

INSERT INTO qworker.job (id, seq, cancel_requested_at, expires_at, state, priority, holds_key, queue, task)
SELECT id, 100000 + id, CASE WHEN id > 123990 THEN now() END,
       CASE WHEN id % 10 = 0 THEN now() + CASE WHEN id > 123000 THEN interval '-1 s' ELSE interval '1 d' END END,
       'available', id / 2 % 10, id = 24001,
       CASE id % 2 WHEN 0 THEN 'default' ELSE 'other' END, 'noop'
  FROM generate_series(24001, 124000) AS id;

SELECT setval('qworker.job_id_seq', 1000000), setval('qworker.job_seq', 1000000);

INSERT INTO qworker.unique_key (task, key, job_id)
SELECT 'noop', 'key ' || id, id FROM (SELECT generate_series(1, 1000) UNION ALL SELECT 24001) AS holder (id);

INSERT INTO qworker.job_history (
    id, token, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes, node_losses, is_hook, queue, task,
    args)
SELECT -id, 7777777777777777777, now(), now(), 'completed', 1, qworker.history_day(now()), 5, 0, 0, false,
       'default', 'noop', '{}'
  FROM generate_series(1, 20000) AS id;
"""

# 100,000 jobs, all cancelled while there was a time for them to be over, are claimed and done, on either node; and as
# many come and go that were scheduled or had failed. Their keys go as well; a node has beaten, and slept and woken.
CHURN = """
INSERT INTO qworker.job (id, seq, cancel_requested_at, expires_at, priority, task)
SELECT 200000 + n, n, now() - interval '1 h', now() - interval '1 h', 0, 'gone' FROM generate_series(1, 100000) AS n;
UPDATE qworker.job
   SET state = 'running', node = 1 + id % 2, token = seq, claimed_at = cancel_requested_at, cancel_requested_at = NULL,
       expires_at = NULL
 WHERE task = 'gone';
INSERT INTO qworker.job (id, seq, run_at, failed_at, state, task)
SELECT 300000 + n, n, now() - interval '1 h', now() - interval '60 d',
       CASE n % 2 WHEN 0 THEN 'scheduled'::qworker.job_state ELSE 'failed' END, 'gone'
  FROM generate_series(1, 100000) AS n;
DELETE FROM qworker.job WHERE task = 'gone';

INSERT INTO qworker.unique_key (task, key, job_id)
SELECT 'gone', 'key ' || n, 200000 + n FROM generate_series(1, 100000) AS n;
DELETE FROM qworker.unique_key WHERE task = 'gone';

DO $$
DECLARE
    place tid;
BEGIN
    SELECT ctid INTO place FROM qworker.node WHERE id = 1;
    FOR change IN 1..10000 LOOP -- three hours; by its place: any other way leads over all that is dead
        UPDATE qworker.node SET heartbeat = heartbeat + 1 WHERE ctid = place RETURNING ctid INTO place;
        IF change % 10 = 0 THEN
            DELETE FROM qworker.idle_node;
            INSERT INTO qworker.idle_node VALUES (1, '{default,other}');
        END IF;
    END LOOP;
END
$$;
"""

# A table that never held a row has no pages either, and the first one that a rolled back statement leaves would change
# what is planned next.
WORKED = """
INSERT INTO qworker.job (task) SELECT 'done' FROM generate_series(1, 1000);
DELETE FROM qworker.job;
INSERT INTO qworker.unique_key (task, key, job_id) SELECT 'done', n, n FROM generate_series(1, 1000) AS n;
DELETE FROM qworker.unique_key;
"""

VACUUM = "VACUUM (ANALYZE) qworker.job, qworker.job_history, qworker.unique_key, qworker.node, qworker.idle_node"

# No statistics but those that a test makes.
ALONE = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'qworker'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
    END LOOP;
END
$$
"""

# auto_explain tells the plan of the very statement that the session has prepared, with the parameters as psycopg binds
# them; EXPLAIN of the same text would be another statement, with a plan of its own.
_EXPLAIN = """
SELECT set_config('auto_explain.' || name, value, false)
  FROM (VALUES ('log_min_duration', '0'), ('log_analyze', 'on'), ('log_buffers', 'on'), ('log_timing', 'off'),
               ('log_nested_statements', 'on'), ('log_format', 'json'), ('log_level', 'notice')) AS s (name, value)
"""


@dataclass(frozen=True)
class Plan:
    """The plan of a statement and of those in its functions, with what its execution took."""

    nodes: tuple[dict[str, Any], ...]
    #: Pages looked at, as often as they were. A dead row that an index still names counts here alone.
    pages: int

    @classmethod
    def of(cls, notices: list[str]) -> Self:
        """Read what auto_explain tells; the statement itself ends last."""
        plans = [json.loads(notice.partition("plan:")[2])["Plan"] for notice in notices]
        pages = plans[-1]["Shared Hit Blocks"] + plans[-1]["Shared Read Blocks"]
        return cls(tuple(node for plan in plans for node in walk(plan)), pages)

    @property
    def indexes(self) -> set[str]:
        return {scan["Index Name"] for scan in self._scans if "Index Name" in scan}

    @property
    def sequential(self) -> set[str]:
        """The tables that are read as a whole."""
        return {scan["Relation Name"] for scan in self._scans if scan["Node Type"] == "Seq Scan"}

    @property
    def rows(self) -> int:
        """Rows looked at, wanted or not."""
        return sum(
            round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"])
            for scan in self._scans
        )

    @property
    def expected(self) -> int:
        """Rows that the planner thought it would get from the table that gives it most."""
        # For `queue` it is the length of the array of names, which the planner takes for ten.
        return max(int(scan["Plan Rows"]) for scan in self._scans if scan["Relation Name"] != "queue")

    @property
    def _scans(self) -> list[dict[str, Any]]:
        return [node for node in self.nodes if node["Node Type"].endswith("Scan") and "Relation Name" in node]


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan, from the top."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from walk(child)


class Session:
    """A connection as the framework has it, on which every statement tells its plan and is undone."""

    def __init__(self, database: Database) -> None:
        self._conn = connect(database.dsn, "test")
        self._conn.execute("LOAD 'auto_explain'")
        self._conn.execute(_EXPLAIN, prepare=False)
        self._notices: list[str] = []
        self._conn.add_notice_handler(lambda notice: self._notices.append(notice.message_primary or ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def configure(self, **settings: str) -> None:
        """Set parameters of the server for what is watched later."""
        for name, value in settings.items():
            self._conn.execute("SELECT set_config(%s, %s, false)", (name, value), prepare=False)

    def watch(self, call: Callable[[Connection], int]) -> tuple[Plan, int]:
        """Return the plan of a call's one statement, and what the call returns."""
        with self._undone():
            found = call(self._conn)
        return Plan.of(self._notices), found

    @contextmanager
    def _undone(self) -> Iterator[None]:
        # Behind psycopg's back: it forgets every prepared statement at a rollback.
        self._conn.pgconn.exec_(b"BEGIN")
        self._notices.clear()
        try:
            yield
        finally:
            self._conn.pgconn.exec_(b"ROLLBACK")
