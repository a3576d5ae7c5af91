"""What once went wrong, and needs real processes to go wrong again."""

from pathlib import Path

import psycopg

from qworker import JobState
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.lifecycle.application import short_nap
from tests.lifecycle.cluster import Cluster, reached
from tests.waiting import until

#: Longer than a worker that leaves waits for the database (seconds).
LONG = 7.0


def test_a_timeout_while_the_database_is_away_counts_all_the_same(tmp_path: Path) -> None:
    """The interrupted worker is replaced; if it left before the failure was written, the job would run once more."""
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn) as conn:
            migrate(conn)
        with Cluster(Database(server.dsn), tmp_path) as cluster:
            node = cluster.start("--processes", "1").await_ready()
            job = short_nap.enqueue(60)
            cluster.await_notes("start", job=job.id)
            server.stop()
            until(
                lambda: any(
                    e["unavailable_for"] > LONG for e in node.events("database.disconnected", role="scheduler")
                ),
                LONG + 10,
            )
            server.start()
            assert reached(job).state is JobState.FAILED
            assert [error["cause"] for error in job.refresh().errors] == ["timeout"]
            assert len(cluster.notes("start", job=job.id)) == 1
            node.await_event("child.ended", cause="exit:80")
            assert node.stop() == 0
