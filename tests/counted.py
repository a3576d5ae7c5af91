"""Counts that a test has written to `stat`, also in the tables with their sums."""

from typing import Any

import psycopg

_STATEMENTS = """
TRUNCATE qworker.stat_total, qworker.stat_queue;
INSERT INTO qworker.stat_total (width, at, series, succeeded, retried, raised, timed_out, oom, failed, cancelled,
                                run_seconds, wait_seconds, run_histogram, wait_histogram)
SELECT s.width, s.at, s.series, s.succeeded, s.retried, s.raised, s.timed_out, s.oom, s.failed, s.cancelled,
       s.run_seconds, s.wait_seconds, s.run_histogram, s.wait_histogram
  FROM qworker.stat AS s;
INSERT INTO qworker.stat_queue (width, at, queue, succeeded, retried, raised, timed_out, oom, failed, cancelled,
                                run_seconds, wait_seconds, run_histogram, wait_histogram)
SELECT t.width, t.at, coalesce(n.queue, ''), sum(t.succeeded), sum(t.retried), sum(t.raised), sum(t.timed_out),
       sum(t.oom), sum(t.failed), sum(t.cancelled), sum(t.run_seconds), sum(t.wait_seconds), sum(t.run_histogram),
       sum(t.wait_histogram)
  FROM qworker.stat_total AS t JOIN qworker.series AS n ON n.id = t.series
 GROUP BY GROUPING SETS ((t.width, t.at, n.queue), (t.width, t.at));
"""


def add_sums(conn: psycopg.Connection[Any]) -> None:
    """Write the sums of all rows of `stat`."""
    conn.execute(_STATEMENTS)
