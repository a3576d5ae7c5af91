"""How soon a failure is over: what docs/reliability.md says of the scheduler, a restart of the server, and a deploy.

Killed workers are in test_crash.py, supervisors and lost machines in test_lease.py, standbys in tests/chaos.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.lifecycle.application import nap, quick
from tests.lifecycle.cluster import Cluster
from tests.waiting import until

#: Due jobs flow again so long after their scheduler was killed (seconds).
SCHEDULED = 1.0
#: Jobs run so long after the server accepts connections again (seconds), and as many as before.
RESTARTED, SHARE = 3.0, 0.9
#: Throughput is measured over so long (seconds), with jobs that sleep: the machine's other work does not count.
WINDOW, NAP = 3.0, 0.02


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn) as connection:
            migrate(connection)
        yield server


def test_due_jobs_flow_again_within_a_second_when_the_scheduler_is_killed(cluster: Cluster) -> None:
    node = cluster.start("--processes", "2").await_ready()
    (scheduler,) = node.children("scheduler")
    job = quick.options(delay=0.2).enqueue()
    os.kill(scheduler, signal.SIGKILL)
    killed_at = monotonic()
    (note,) = cluster.await_notes("start", job=job.id)
    assert float(note["at"]) - killed_at < SCHEDULED
    assert node.await_event("child.died", child="scheduler")["respawn_in"] == 0
    assert node.stop() == 0


def test_after_a_restart_of_the_server_as_many_jobs_run_as_before(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with Cluster(Database(server.dsn), tmp_path) as cluster:
        node = cluster.start("--processes", "4").await_ready()
        nap.enqueue_many([(NAP,)] * 6000)
        cluster.await_notes("end", 100)

        def ends(after: float) -> int:
            """Wait for the end of the window that begins then; return how many jobs have ended in it."""
            until(lambda: monotonic() > after + WINDOW, RESTARTED + WINDOW + 1)
            return sum(after < float(note["at"]) <= after + WINDOW for note in cluster.notes("end"))

        before = ends(monotonic())
        server.restart()
        accepting_at = monotonic()
        cluster.await_notes("end", len(cluster.notes("end")) + 1)
        starts = [float(note["at"]) for note in cluster.notes("start")]
        assert min(at for at in starts if at > accepting_at) - accepting_at < RESTARTED
        # A neighbour may take the machine for a moment; three windows in a row are no such moment.
        assert any(ends(accepting_at + RESTARTED + number * WINDOW) >= SHARE * before for number in range(3))
        assert node.events("child.died") == []
        node.stop()


def test_a_deploy_under_load_costs_no_attempt_and_runs_nothing_twice(cluster: Cluster) -> None:
    options = ("--processes", "3", "--shutdown-timeout", "0.5", "--interrupt-timeout", "3")
    old = cluster.start(*options).await_ready()
    long = nap.enqueue_many([(2.0,)] * 3, ids=True)
    short = nap.enqueue_many([(0.01,)] * 600, ids=True)
    for job in long[:2]:
        cluster.await_notes("start", job=job)
    for _ in range(3):
        ended = len(cluster.notes("end"))
        new = cluster.start(*options)
        old.signal(signal.SIGTERM)
        assert old.wait(20) == 0
        old = new
        cluster.await_notes("end", min(ended + 30, len(short)))
    until(lambda: cluster.value("SELECT count(*) FROM qworker.job") == 0, 20, what=cluster.tail)
    charged = "SELECT id, state, attempt, crashes, node_losses, errors FROM qworker.job_history"
    unlike = f"{charged} WHERE (state, attempt, crashes, node_losses) <> ('completed', 1, 0, 0) OR errors IS NOT NULL"
    assert cluster.query(unlike) == []
    assert cluster.value("SELECT count(*) FROM qworker.job_history") == len(long) + len(short)
    started = [int(note["job"]) for note in cluster.notes("start")]
    assert any(started.count(job) > 1 for job in long), "nothing was interrupted, and began anew with the successor"
    assert sorted(int(note["job"]) for note in cluster.notes("end")) == sorted([*long, *short])
    assert old.stop() == 0
