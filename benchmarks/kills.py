"""The counts of a node against the history, after SIGKILLs to its processes under load.

    python benchmarks/kills.py [--kills 100] [--seconds 40]

A node of four workers runs jobs that return, sleep and raise, while one of its processes is killed at random intervals:
a worker, or the scheduler every tenth time. Afterwards the counts in `stat` have to be those of the jobs: what a
process had written when it was killed is counted by its recovery. Only the microseconds between the mark of a write and
its count remain, so one write may be missing, a batch of completed jobs or another job. It takes two minutes, and ends
with 1 otherwise.
"""

import argparse
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from stage import Node, Stage, family, until
from tasks import broken, nap, noop

PROCESSES, BATCH, JOBS = 4, 64, 300
#: A scheduler is killed instead of a worker every so many times.
SCHEDULER = 10

COUNTED = """
    SELECT coalesce(sum(c.succeeded), 0), coalesce(sum(c.failed), 0), coalesce(sum(c.signalled), 0)
      FROM (SELECT succeeded, failed, signalled FROM qworker.stat
             UNION ALL
            SELECT c.succeeded, c.failed, c.signalled FROM qworker.stat_flush AS f
             CROSS JOIN LATERAL jsonb_to_recordset(f.counts) AS c (succeeded integer, failed integer, signalled integer)
           ) AS c"""
STORED = """
    SELECT (SELECT count(*) FROM qworker.job_history WHERE state = 'completed'),
           (SELECT count(*) FROM qworker.job WHERE state = 'failed'), (SELECT sum(crashes) FROM qworker.jobs)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=40.0, help="over which they are spread")
    given = parser.parse_args()
    began = time.monotonic()
    with Stage() as stage:
        with Node(stage, PROCESSES, "--max-batch", str(BATCH), quiet=True) as node:
            until(lambda: len(processes(node, "")) == PROCESSES, timeout=30)
            killed = kill(node, given.kills, given.seconds / given.kills)
            until(lambda: not stage.value("SELECT EXISTS (SELECT FROM qworker.job WHERE state <> 'failed')"), 0.1, 120)
        (counted,), (stored,) = (stage.database.execute(query).fetchall() for query in (COUNTED, STORED))
    missed = False
    limits = (BATCH, 1, 1)
    for name, found, jobs, limit in zip(("completed", "failed", "crashes"), counted, stored, limits, strict=True):
        missed |= not 0 <= jobs - found <= limit
        print(f"{name:10} {jobs:8} stored {found:8} counted {jobs - found:6} not counted")
    print(f"{killed} SIGKILLs in {time.monotonic() - began:.0f} s: {'MISSED' if missed else 'reached'}")
    return int(missed)


def kill(node: Node, kills: int, interval: float) -> int:
    """Enqueue jobs and kill a process, again and again; return how many were killed."""
    killed, due = 0, time.monotonic()
    while killed < kills:
        noop.enqueue_many((n,) for n in range(JOBS))
        nap.enqueue_many([(0.005,)] * JOBS)
        broken.enqueue_many([(killed,)] * 5)
        due += random.uniform(0.5, 1.5) * interval
        time.sleep(max(0.0, due - time.monotonic()))
        found = processes(node, "sched" if killed % SCHEDULER == SCHEDULER - 1 else "")
        if found:
            with suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
                killed += 1
    return killed


def processes(node: Node, role: str) -> list[int]:
    """Return the pids of the workers, or of the processes whose names end in a role."""
    names = {}
    for pid, _ in family(node.process.pid):
        with suppress(OSError):
            names[pid] = Path(f"/proc/{pid}/comm").read_text().strip().rpartition("qworker-")[2]
    return [pid for pid, name in names.items() if (name == role if role else name.isdigit())]


if __name__ == "__main__":
    sys.exit(main())
