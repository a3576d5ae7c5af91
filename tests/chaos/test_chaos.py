"""Under fire: whatever strikes, every committed job has one end, none runs twice at a time, and effects are exact.

$CHAOS_SECONDS says for how long (the short form if not given), $CHAOS_SEED what happens; a failure names its seed.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psycopg
import pytest

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.chaos.faults import Field, Storm
from tests.chaos.producers import Producers
from tests.chaos.tasks import TABLES
from tests.database import Database
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy
from tests.waiting import until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1_000_000)))

#: Faults of the environment shall not use up what a job may cost.
NODE = (
    "--processes", "2", "--lease", "5", "--kill-grace", "1", "--max-crashes", "1000", "--max-losses", "1000",
    "--shutdown-timeout", "2", "--interrupt-timeout", "1", "--poll-interval", "0.5",
)  # fmt: skip

LEFT = "SELECT count(*) FROM qworker.job WHERE state <> 'failed'"
#: Expected jobs that have not exactly one end, or not that one; and jobs that nobody has committed.
WRONG = """
SELECT e.job, e.task, e.state, ends.states
  FROM expected AS e
 CROSS JOIN LATERAL (
        SELECT array_agg(found.state::text) AS states
          FROM (SELECT state FROM qworker.job WHERE id = e.job
                UNION ALL SELECT state FROM qworker.job_history WHERE id = e.job) AS found) AS ends
 WHERE ends.states IS DISTINCT FROM ARRAY[e.state]
UNION ALL
SELECT j.id, j.task, NULL, NULL FROM qworker.jobs AS j WHERE NOT EXISTS (SELECT FROM expected WHERE job = j.id)
"""
#: Jobs whose effect did not take place, and transactional ones whose effect did not take place exactly once.
INEXACT = """
SELECT e.job, e.task, count(r.job) FROM expected AS e LEFT JOIN ran AS r ON r.job = e.job
 WHERE e.task NOT LIKE '%counts' GROUP BY 1, 2 HAVING count(r.job) = 0
UNION ALL
SELECT e.job, e.task, count(c.job) FROM expected AS e LEFT JOIN counted AS c ON c.job = e.job
 WHERE e.task LIKE '%counts' GROUP BY 1, 2 HAVING count(c.job) <> 1
"""
COUNTED = "SELECT (SELECT sum(number) FROM counter), (SELECT count(*) FROM expected WHERE task LIKE '%counts')"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[EmbeddedPostgres, Cluster]]:
    """A server that may be killed, and a cluster on it."""
    with EmbeddedPostgres() as server:
        database = Database.create(server, "chaos")
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            migrate(connection)
            connection.execute(TABLES)
        with Cluster(database, tmp_path) as cluster:
            yield server, cluster
        database.close()


@pytest.mark.timeout(SECONDS + 180)
def test_nothing_is_lost_and_nothing_is_doubled_whatever_strikes(own: tuple[EmbeddedPostgres, Cluster]) -> None:
    server, cluster = own
    random = Random(SEED)
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}")  # noqa: T201 - pytest shows it with a failure
    with Proxy(cluster.database.dsn) as proxy:

        def start(side: int) -> Node:
            dsn = proxy.dsn if side else cluster.database.dsn
            return cluster.start(*NODE, dsn=dsn, QWORKER_APP="tests.chaos.tasks:app", QWORKER_LOG_LEVEL="info")

        field = Field(cluster, server, proxy, start, [start(0), start(1)], random)
        for node in field.nodes:
            node.await_ready()
        storm = Storm(field)
        try:
            with Producers(cluster.database.dsn, random):
                storm.rage(SECONDS)
                cluster.hang_up()
            until(lambda: cluster.value(LEFT) == 0, 60.0, what=lambda: f"jobs are left: {cluster.query(LEFT)}")
            assert cluster.query(WRONG) == []
            assert cluster.query(INEXACT) == []
            ((counter, expected),) = cluster.query(COUNTED)
            assert counter == expected > 0
            ends = cluster.query("SELECT task, state, count(*) FROM expected GROUP BY 1, 2 ORDER BY 1")
            print(*ends, f"{len(cluster.notes('start'))} handlers started", sep="\n")  # noqa: T201
        finally:
            print("\n".join(storm.record))  # noqa: T201
        for node in field.nodes:
            assert node.stop() == 0
        assert cluster.value("SELECT count(*) FROM qworker.node") == 0
