"""What has to hold after a storm: every job has the one end that was expected of it, and effects are exact."""

from typing import Any

import psycopg

from tests.lifecycle.cluster import Cluster
from tests.waiting import until

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
SELECT j.id, j.task, NULL, NULL FROM qworker.jobs AS j
 WHERE j.task NOT IN ('noop', 'tests.chaos.tasks.ticks') AND NOT EXISTS (SELECT FROM expected WHERE job = j.id)
"""
#: Jobs whose effect did not take place, and transactional ones whose effect did not take place exactly once.
INEXACT = """
SELECT e.job, e.task, count(r.job) FROM expected AS e LEFT JOIN ran AS r ON r.job = e.job
 WHERE e.task NOT LIKE '%counts' GROUP BY 1, 2 HAVING count(r.job) = 0
UNION ALL
SELECT e.job, e.task, count(c.job) FROM expected AS e LEFT JOIN counted AS c ON c.job = e.job
 WHERE e.task LIKE '%counts' GROUP BY 1, 2 HAVING count(c.job) <> 1
"""
#: Ticks for which more than one job was made, and jobs of ticks that have not ended well.
REPEATED = """
SELECT tick, array_agg(DISTINCT job) FROM ticked GROUP BY tick HAVING count(DISTINCT job) > 1
UNION ALL
SELECT NULL, array_agg(id) FROM qworker.job WHERE task LIKE '%ticks' AND state = 'failed' HAVING count(*) > 0
"""
NODES = "SELECT id, name, heartbeat_at FROM qworker.node"
#: What the counter says, and what it has to say.
COUNTED = "SELECT (SELECT sum(number) FROM counter), (SELECT count(*) FROM expected WHERE task LIKE '%counts')"


def settle(cluster: Cluster, timeout: float = 60.0) -> None:
    """Wait until nothing is left to do."""
    until(lambda: ask(cluster, LEFT) == [(0,)], timeout, what=lambda: f"jobs are left: {ask(cluster, LEFT)}")


def await_dead_nodes(cluster: Cluster, nodes: int, seconds: float) -> None:
    """Wait until the table of nodes holds the living ones alone.

    A node that was killed, or had no database to sign off with, stands there until a living one has watched its
    heartbeat stand still for a whole lease; each fault that hits the watcher starts that anew.
    """
    until(
        lambda: ask(cluster, "SELECT count(*) FROM qworker.node") == [(nodes,)], seconds,
        what=lambda: f"{nodes} nodes; there are {ask(cluster, NODES)}",
    )  # fmt: skip


def check(cluster: Cluster) -> None:
    """Fail if anything was lost or doubled."""
    assert ask(cluster, WRONG) == []
    assert ask(cluster, INEXACT) == []
    assert ask(cluster, REPEATED) == []
    ((counter, expected),) = ask(cluster, COUNTED)
    assert counter == expected > 0


def ask(cluster: Cluster, query: str) -> list[tuple[Any, ...]]:
    """Return the rows, also when a server with a clock that moves crashes once more.

    libfaketime reads a file whenever it is asked for the time, in signal handlers as well: malloc may not bear it.
    """

    def answer() -> list[list[tuple[Any, ...]]]:
        try:
            return [cluster.query(query)]
        except psycopg.OperationalError:
            return []

    (rows,) = until(answer, what=query)
    return rows
