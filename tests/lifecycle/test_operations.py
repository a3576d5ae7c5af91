"""Operations on many jobs survive whatever carries them out: each job has its turn exactly once."""

import os
import signal
import subprocess
import sys

from qworker import JobState
from tests.lifecycle import application as shop
from tests.lifecycle.cluster import Cluster, reached
from tests.waiting import until

ENDED = """
INSERT INTO qworker.job_history (id, task, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,
                                 node_losses, is_hook, queue, args)
SELECT n, 'noop', now(), now(), 'completed', 1, qworker.history_day(now()), 5, 0, 0, false, 'elsewhere', '{}'
  FROM generate_series(1, %s) AS n
"""
COPIES = "SELECT count(*) FROM qworker.job WHERE meta ? 'copy_of'"
DONE = "SELECT coalesce(max(done), 0) FROM qworker.operation"
STATE = "SELECT max(state) FROM qworker.operation"


def client(cluster: Cluster, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "qworkerd", *words], env={**os.environ, "QWORKER_DSN": cluster.database.dsn}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_client_and_a_node_are_killed_and_each_job_is_copied_once(cluster: Cluster) -> None:
    """A copy that is made twice, or not at all, shows; a retry would not."""
    cluster.query(ENDED, 2_000)
    cluster.query("SELECT setval('qworker.job_id_seq', 10000)")
    first = cluster.start("--processes", "1").await_ready()
    with client(cluster, "jobs", "again", "queue:elsewhere", "--yes", "--rate", "500/s") as waiting:
        until(lambda: cluster.value(DONE) >= 500)
        waiting.kill()
        until(lambda: cluster.value(DONE) >= 1_000)  # the node goes on
        os.killpg(first.pid, signal.SIGKILL)
    assert cluster.value(STATE) == "running"
    done = cluster.value(DONE)
    second = cluster.start("--processes", "1").await_ready()
    ended = second.await_event("operation.ended", timeout=30)
    assert (ended["action"], ended["state"], ended["done"], ended["skipped"]) == ("again", "completed", 2_000, 0)
    assert done < 2_000
    assert cluster.value(COPIES) == 2_000
    assert cluster.value("SELECT count(DISTINCT meta ->> 'copy_of') FROM qworker.job") == 2_000


def test_a_node_carries_out_what_a_client_has_left_and_runs_the_jobs(cluster: Cluster) -> None:
    job = shop.hopeless.enqueue()
    node = cluster.start("--processes", "1").await_ready()
    reached(job, JobState.FAILED)
    with client(cluster, "jobs", "retry", "state:failed", "--yes", "--detach") as started:
        assert "is running" in started.communicate(timeout=30)[0]
    assert node.await_event("operation.ended")["done"] == 1
    until(lambda: len(cluster.notes("start", job=job.id)) >= 2, 10)
