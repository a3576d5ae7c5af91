"""What a node counts is what the history says, but for the batches of processes that were killed at the wrong time."""

import os
import signal
from contextlib import suppress

from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOONER, Cluster
from tests.lifecycle.handlers import impatient
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy
from tests.waiting import until

JOBS, KILLS = 2_000, 10

SUMS = """
    SELECT coalesce(sum(succeeded), 0), coalesce(sum(failed), 0), coalesce(sum(retried), 0), coalesce(sum(raised), 0),
           coalesce(sum(signalled), 0)
      FROM (SELECT c.* FROM qworker.stat_flush AS f
             CROSS JOIN LATERAL jsonb_to_recordset(f.counts) AS c (succeeded integer, failed integer, retried integer,
                   raised integer, signalled integer)
            UNION ALL
            SELECT succeeded, failed, retried, raised, signalled FROM qworker.stat) AS counted"""
LEFT = "SELECT count(*) FROM qworker.job WHERE state <> 'failed'"


def test_the_counts_are_those_of_the_history(cluster: Cluster) -> None:
    """Nothing is killed: every number is exact."""
    quick.enqueue_many([()] * JOBS)
    impatient.enqueue_many([()] * 20)
    node = cluster.start("--processes", "2", "--burst", *SOONER)
    assert node.wait(60) == 0
    ((succeeded, failed, retried, raised, signalled),) = cluster.query(SUMS)
    assert (succeeded, failed, retried, raised, signalled) == (JOBS, 20, 40, 20, 0)
    ((waits, series),) = cluster.query("""
        SELECT sum(n), count(DISTINCT c.series) FROM qworker.stat_flush AS f
         CROSS JOIN LATERAL jsonb_to_recordset(f.counts) AS c (series integer, wait_count integer[])
         CROSS JOIN LATERAL unnest(c.wait_count) AS n""")
    assert (waits, series) == (JOBS + 60, 2), "each attempt has waited"


def test_the_counts_survive_workers_and_schedulers(cluster: Cluster) -> None:
    """Workers and schedulers are killed at random times; each may lose the count of what it was writing.

    That is a batch of a worker, or the crash of one worker that a scheduler was recovering.
    """
    node = cluster.start("--processes", "2", "--max-batch", "5", *SOONER).await_ready()
    for kill in range(KILLS):
        quick.enqueue_many([()] * (JOBS // KILLS))
        role = "scheduler" if kill % 5 == 4 else "worker"
        with suppress(ProcessLookupError):
            os.kill(until(lambda: node.children(role), 40)[0], signal.SIGKILL)  # noqa: B023
        node.await_event("child.died", count=kill + 1)
    until(lambda: cluster.value(LEFT) == 0, 60)
    assert node.stop() == 0
    ((succeeded, failed, _, _, signalled),) = cluster.query(SUMS)
    completed = cluster.value("SELECT count(*) FROM qworker.job_history WHERE state = 'completed'")
    crashes = cluster.value("SELECT sum(crashes) FROM qworker.jobs")
    deaths = {role: len([e for e in node.events("child.died") if str(e["child"]).startswith(role)])
              for role in ("worker", "scheduler")}  # fmt: skip
    assert 0 <= completed - succeeded <= 5 * sum(deaths.values()), (completed, succeeded, deaths)
    assert failed == cluster.value("SELECT count(*) FROM qworker.job WHERE state = 'failed'")
    assert 0 <= crashes - signalled <= deaths["scheduler"], (crashes, signalled, deaths)


def without_scheduler(node: Node) -> None:
    """Kill the scheduler until it is not started again at once: the more often it dies, the later."""
    for kill in range(10):
        os.kill(until(lambda: node.children("scheduler"))[0], signal.SIGKILL)
        if node.await_event("child.died", count=kill + 1)["respawn_in"] > 1:
            return
    raise AssertionError(node.events("child.died"))


def test_a_node_is_deregistered_and_its_counts_are_written_though_its_scheduler_has_died(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", *SOONER).await_ready()
    quick.enqueue_many([()] * 5)
    until(lambda: cluster.value(LEFT) == 0)
    without_scheduler(node)
    assert node.stop() == 0
    assert cluster.query(SUMS)[0][0] == 5
    assert cluster.value("SELECT count(*) FROM qworker.node") == 0


def test_a_node_whose_scheduler_has_died_ends_without_its_database(cluster: Cluster) -> None:
    with Proxy(cluster.database.dsn) as proxy:
        node = cluster.start("--processes", "1", *SOONER, dsn=proxy.dsn).await_ready()
        without_scheduler(node)
        proxy.hold()
        assert node.stop() == 0


def test_where_nodes_live_for_seconds_their_counts_are_seen_all_the_same(cluster: Cluster) -> None:
    """Such as `qworker --burst` from cron: each moves what the ones before it have counted, and counts the errors."""
    folded = "SELECT coalesce(sum(succeeded), 0), coalesce(sum(failed), 0) FROM qworker.stat"
    for expected in ((0, 0), (10, 2), (20, 4)):
        quick.enqueue_many([()] * 10)
        impatient.enqueue_many([()] * 2)
        node = cluster.start("--processes", "1", "--burst", "--max-attempts", "1", *SOONER)
        assert node.wait(60) == 0
        assert cluster.query(folded) == [expected]
        assert cluster.value("SELECT sum(count) FROM qworker.error_stat") == expected[1] + 2
        assert cluster.query("UPDATE qworker.stat_flush SET at = at - interval '2 minutes' RETURNING source")
    assert cluster.value("SELECT count(*) FROM qworker.stat_flush") == 1
