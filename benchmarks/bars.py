"""What has to be reached, each bar with the two things that are compared; see README.md."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

import psycopg
from contender import Contender
from idle import MOST_CPU, MOST_STATEMENTS, observe
from on_postgres import Clocked, PgQueuer
from stage import Node, Producers, Stage, cpu, until
from tasks import clock, nap, noop

Figure = Callable[[], float]


@dataclass(frozen=True)
class Bar:
    """A figure, or the ratio of two that are taken in turns, and what it has to reach."""

    name: str
    a: Figure
    #: What `a` is divided by; None: `a` is to be judged by itself.
    b: Figure | None = None
    at_least: float = 0.0
    at_most: float = inf
    unit: str = "jobs/s"
    #: How often at most: some take minutes.
    rounds: int = 10

    @property
    def reach(self) -> str:
        """The bar in words."""
        sign, limit = ("≥", self.at_least) if self.at_most == inf else ("≤", self.at_most)
        return f"{sign} {limit:g}{'' if self.b else ' ' + self.unit}"

    def passed(self, value: float) -> bool:
        """Whether that is enough."""
        return self.at_least <= value <= self.at_most


class Twins:
    """Two figures of one run, which is made when one of them is asked for that no run so far has left."""

    def __init__(self, run: Callable[[], tuple[float, float]]) -> None:
        self._run = run
        self._left: tuple[list[float], list[float]] = [], []

    def first(self) -> float:
        """Return the first figure of a run."""
        return self._take(0)

    def second(self) -> float:
        """Return the second figure of a run."""
        return self._take(1)

    def _take(self, number: int) -> float:
        if not self._left[number]:
            for left, value in zip(self._left, self._run(), strict=True):
                left.append(value)
        return self._left[number].pop(0)


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def script(body: str) -> str:
    """Return a script with the application at hand."""
    return f"import time\nfrom tasks import *\n{body}"


class Bars:
    """All bars, measured on one stage against one peer."""

    def __init__(self, stage: Stage, default: PgQueuer, best: PgQueuer) -> None:
        self.stage = stage
        self.default = default
        self.best = best

    def all(self) -> list[Bar]:
        """Return them in the order of the table."""
        stage = self.stage
        held, free = Twins(lambda: self.trickle(held=True)), Twins(lambda: self.trickle(held=False))
        single, slow, idle, full = Twins(self.single), Twins(self.slow_job), Twins(self.idle), Twins(self.held)
        ours, theirs = Twins(lambda: latency(stage)), Twins(lambda: their_latency(self.default))
        return [
            Bar("drain 20,000; PgQueuer's best row", lambda: stage.drain(20_000), lambda: self.theirs(self.best), 2.0),
            Bar("drain 20,000; PgQueuer's default batch", lambda: stage.drain(20_000),
                lambda: self.theirs(self.default), 6.0),
            Bar("drain 100,000; 20,000", lambda: stage.drain(100_000), lambda: stage.drain(20_000), 0.9),
            Bar("drain 1,000,000; 20,000", lambda: stage.drain(1_000_000), lambda: stage.drain(20_000), 0.9),
            Bar("8 processes; 2", lambda: stage.drain(200_000, 8), lambda: stage.drain(200_000, 2), 1.0),
            Bar("snapshot held over 500,000; none", full.first, lambda: stage.drain(500_000), 0.85),
            Bar("snapshot held: last fifth; first fifth", full.second, None, 0.85, unit=""),
            Bar("held, 1,000,000 finished, 100/s: p99; without", held.first, free.first, at_most=1.5, unit="s"),
            Bar("held, 1,000,000 finished, 100/s: database CPU; without", held.second, free.second, at_most=1.5,
                unit="s"),
            Bar("planned empty, then 400,000, first second; normal", self.burst, lambda: stage.drain(400_000), 0.9),
            Bar("producers and workers, last 10 s of 60; first 10 s", self.sustained, None, 0.9, unit=""),
            Bar("single enqueue; bare INSERT", single.first, single.second, 0.85, unit="calls/s"),
            Bar("8 producers under load; bare INSERT", lambda: self.crowd("noop.enqueue(n)"),
                lambda: self.crowd(BARE), 0.85, unit="calls/s"),
            Bar("enqueue_many of 100,000; PgQueuer's 1,000 at a time", self.many, lambda: 100_000 / self.refill(), 2.0),
            Bar("enqueue_many of 1,000,000: memory; of 100,000", lambda: self.memory_of_many(1_000_000),
                lambda: self.memory_of_many(100_000), at_most=1.1, unit="MiB", rounds=2),
            Bar("idle latency p50; PgQueuer's", ours.first, theirs.first, at_most=0.6, unit="s"),
            Bar("idle latency p99; PgQueuer's", ours.second, theirs.second, at_most=1.0, unit="s"),
            Bar("latency p99 at half of full load", self.half_load, at_most=0.1, unit="s"),
            Bar("idle node of 8: queries", idle.first, at_most=MOST_STATEMENTS, unit="1/s", rounds=3),
            Bar("idle node of 8: CPU", idle.second, at_most=MOST_CPU, unit="% of a core", rounds=3),
            Bar("one of 10 s among 1,000 short: largest start delay beyond the same without", slow.first, None,
                at_most=0.2, unit="s"),
            Bar("one of 10 s among 1,000 short: from a job's end to its acknowledgement", slow.second, None,
                at_most=0.1, unit="s"),
            Bar("committed late under full load: start", self.late, at_most=1.0, unit="s"),
            Bar("memory of an idle worker with Django", lambda: self.memory("django_app:app"), at_most=15,
                unit="MB", rounds=1),
            Bar("memory of an idle worker with SQLAlchemy and requests", lambda: self.memory("sqlalchemy_tasks:app"),
                at_most=15, unit="MB", rounds=1),
            Bar("100,000 scheduled, failed, unknown present; none", self.beside, lambda: stage.drain(100_000), 0.9),
        ]  # fmt: skip

    # Draining

    def theirs(self, peer: PgQueuer) -> float:
        """Return the jobs/s at which the peer drains 20,000."""
        return drain(peer, 20_000, 2)

    def held(self) -> tuple[float, float]:
        """Drain 500,000 beside a session that holds a snapshot from before the first job was claimed.

        Returns the jobs/s, and the rate of the last fifth in units of the first's.
        """
        self.stage.clear()
        self.stage.fill(500_000)
        with self.stage.holding():
            rate = self.stage.work_off(500_000)
        marks = [self.stage.value(
            "SELECT extract(epoch FROM finished_at) FROM qworker.job_history ORDER BY finished_at OFFSET %s LIMIT 1", n)
            for n in (0, 100_000, 400_000, 499_999)]  # fmt: skip
        return rate, float((marks[1] - marks[0]) / (marks[3] - marks[2]))

    def trickle(self, *, held: bool) -> tuple[float, float]:
        """Have a node finish 1,000,000 jobs and then serve 100 a second for 30 s.

        Returns, in seconds, the latency's p99 and the CPU time of the database.
        """
        stage, rest = self.stage, 3000
        stage.clear()
        stage.fill(1_000_000)
        with stage.holding() if held else nullcontext(), Node(stage, 2) as node:
            until(stage.begun)
            until(stage.empty, 0.1)
            until(stage.idle)
            stage.database.execute("VACUUM ANALYZE qworker.job")
            before = cpu(stage.server.pid or 0)
            clocked(rest, 0.01)
            until(lambda: len(node.notes()) >= rest, 0.1)
            return percentile(node.notes(), 0.99), cpu(stage.server.pid or 0) - before

    def burst(self) -> float:
        """Return how many of 400,000 jobs an idle node, its plans made on empty tables, ends in the first second."""
        stage = self.stage
        stage.clear()
        with Node(stage, 2):
            until(stage.idle)
            noop.enqueue(1)
            until(stage.empty)
            stage.database.execute("ANALYZE qworker.job")
            stage.database.execute("TRUNCATE qworker.job_history")
            noop.enqueue_many((n,) for n in range(400_000))
            until(stage.empty, 0.01)
        return float(stage.by_second()[0])

    def sustained(self) -> float:
        """Have producers and workers at it for 60 s; return the jobs of the last 10 s in units of the first."""
        stage = self.stage
        stage.clear()
        feed = script(
            "end = time.monotonic() + 60\nwhile time.monotonic() < end: noop.enqueue_many([(1,)] * 500)\nprint(0)"
        )
        with Node(stage, 2), Producers(stage, [feed]) as producers:
            producers.answers()
        seconds = stage.by_second()
        return sum(seconds[50:60]) / sum(seconds[:10])

    def beside(self) -> float:
        """Drain 100,000 with as many scheduled, failed and unknown jobs in the table."""
        stage, soon = self.stage, datetime.now(UTC) + timedelta(hours=1)
        stage.clear()
        noop.options(run_at=soon).enqueue_many((n,) for n in range(100_000))
        stage.database.execute(
            "INSERT INTO qworker.job (task, args, state, failed_at, attempt)"
            " SELECT 'noop', '{\"n\": 1}', 'failed', clock_timestamp(), 3 FROM generate_series(1, 100000)"
        )
        stage.database.execute(
            "INSERT INTO qworker.job (task, args, state, run_at, unknown_task_count)"
            " SELECT 'nobody.knows', '{}', 'scheduled', now() + make_interval(secs => 1 + random() * 3600), 8"
            "   FROM generate_series(1, 100000)"
        )
        stage.fill(100_000)
        return stage.work_off(100_000)

    # Enqueueing

    def single(self) -> tuple[float, float]:
        """Return the calls/s of one connection, and those of the bare INSERT; they take turns every 100 calls."""
        self.stage.clear()
        with Producers(self.stage, [timed("noop.enqueue(n)", BARE, calls=100, turns=30)]) as producers:
            ours, bare = producers.answers()[0]
            return ours, bare

    def crowd(self, statement: str) -> float:
        """Return the calls/s of eight producers together, while a node has more to do than it can."""
        stage = self.stage
        stage.clear()
        stage.fill(400_000)
        with Node(stage, 2):
            until(stage.begun, 0.01)
            with Producers(stage, [timed(statement, calls=500)] * 8) as producers:
                return sum(rate for (rate,) in producers.answers())

    def many(self) -> float:
        """Return the rows/s of one `enqueue_many`."""
        self.stage.clear()
        start = time.monotonic()
        noop.enqueue_many((n,) for n in range(100_000))
        return 100_000 / (time.monotonic() - start)

    def refill(self) -> float:
        """Return the seconds in which the peer enqueues 100,000."""
        self.best.clear()
        return self.best.fill(100_000)

    def memory_of_many(self, jobs: int) -> float:
        """Return the peak resident memory (MiB) of a process that enqueues so many from a generator."""
        self.stage.clear()
        body = f"import resource\nnoop.enqueue_many((n,) for n in range({jobs}))\n"
        with Producers(
            self.stage, [script(body + "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)")]
        ) as producers:
            return producers.answers()[0][0]

    # Latency

    def half_load(self) -> float:
        """Return the p99 of the latency while half as many jobs come as a node of two can do."""
        stage = self.stage
        rate = stage.drain(100_000) / 2
        stage.clear()
        jobs = int(rate * 20)
        size = max(1, int(rate / 100))
        feed = script(
            f"due = time.monotonic()\nfor n in range({jobs // size}):\n"
            f"    clock.enqueue_many([(time.monotonic(),)] * {size})\n"
            "    due += 0.01\n    time.sleep(max(0.0, due - time.monotonic()))\nprint(0)"
        )
        with Node(stage, 2) as node:
            until(stage.idle)
            with Producers(stage, [feed]) as producers:
                producers.answers()
            until(lambda: len(node.notes()) >= jobs // size * size, 0.2)
            return percentile(node.notes(), 0.99)

    def slow_job(self) -> tuple[float, float]:
        """Return what one job of 10 s does to 1,000 short ones among which it stands.

        That is by how much their largest start delay grows, and the longest that one waits for its acknowledgement.
        """
        delay, acknowledged = self.spread([(0.001,)] * 500 + [(10.0,)] + [(0.001,)] * 500)
        return delay - self.spread([(0.001,)] * 1000)[0], acknowledged

    def spread(self, jobs: list[tuple[float]]) -> tuple[float, float]:
        """Have 4 workers sleep for so many seconds each.

        Returns the seconds from the first start to the last, and the most from an end to its acknowledgement.
        """
        stage = self.stage
        stage.clear()
        nap.enqueue_many(jobs)
        with Node(stage, 4) as node:
            until(lambda: stage.value("SELECT count(*) FROM qworker.job_history") >= len(jobs), 0.05)
            numbers = node.notes()
        ids, starts, ends = numbers[0::3], numbers[1::3], numbers[2::3]
        rows = stage.database.execute("SELECT id, extract(epoch FROM finished_at)::float8 FROM qworker.job_history")
        acknowledged = dict(rows.fetchall())
        return max(starts) - min(starts), max(acknowledged[int(job)] - end for job, end in zip(ids, ends, strict=True))

    def late(self) -> float:
        """Return how long a job waits that is committed under full load after others behind it were claimed."""
        stage = self.stage
        stage.clear()
        with psycopg.connect(stage.dsn) as late:
            (number,) = late.execute(
                "INSERT INTO qworker.job (task, args) VALUES ('noop', '{\"n\": 1}') RETURNING id"
            ).fetchone() or (0,)
            stage.fill(300_000)
            with Node(stage, 2):
                until(
                    lambda: stage.value("SELECT count(*) > 1000 FROM (SELECT FROM qworker.job_history LIMIT 1001) AS h")
                )
                late.commit()
                committed = time.time()
                until(lambda: stage.value("SELECT count(*) FROM qworker.job_history WHERE id = %s", number))
                until(stage.empty, 0.05)
        return (
            float(stage.value("SELECT extract(epoch FROM claimed_at) FROM qworker.job_history WHERE id = %s", number))
            - committed
        )

    # Idling

    def idle(self) -> tuple[float, float]:
        """Return the statements a second and the percentage of a core of a node of eight that has nothing to do."""
        found = observe(self.stage, 8, 1)
        return found.rate, found.node_cpu

    def memory(self, tasks: str) -> float:
        """Return the private memory (MB, median) of idle workers."""
        self.stage.clear()
        with Node(self.stage, 8, tasks=tasks) as node:
            until(self.stage.idle)
            return statistics.median(private(pid) for pid in node.workers)


#: What an enqueue can at best be: the same row into the same table, prepared, and committed.
BARE = "connection.execute(INSERT, (n,))"
INSERT = "INSERT INTO qworker.job (task, args) VALUES ('noop', jsonb_build_object('n', %s::int)) RETURNING id"


def timed(*statements: str, calls: int, turns: int = 1) -> str:
    """Return a script that prints how often a second each statement can be executed, so many calls in a row."""
    lines = [
        "import os, psycopg",
        f"INSERT = {INSERT!r}",
        "connection = psycopg.connect(os.environ['QWORKER_DSN'], autocommit=True)",
        "connection.prepare_threshold = 0",
        f"took = [0.0] * {len(statements)}",
        f"for turn in range({turns} + 1):",  # the first does not count
    ]
    for number, statement in enumerate(statements):
        lines += [
            "    start = time.monotonic()",
            f"    for n in range({calls} if turn else 100): {statement}",
            f"    took[{number}] += time.monotonic() - start if turn else 0.0",
        ]
    return script("\n".join([*lines, f"print(*({calls * turns} / seconds for seconds in took))"]))


def private(pid: int) -> float:
    """Return the memory (MB) that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1000


def drain(peer: Contender, jobs: int, processes: int) -> float:
    """Return the jobs/s at which a peer drains a queue, from its first job to its last acknowledgement."""
    peer.clear()
    peer.fill(jobs)
    peer.start(processes)
    try:
        until(peer.begun, 0.001)
        start = time.monotonic()
        until(lambda: not peer.left(), 0.01)
        rate = jobs / (time.monotonic() - start)
    finally:
        peer.stop()
    if peer.acknowledged() != jobs:
        raise SystemExit(f"{peer.name}: {peer.acknowledged()} of {jobs} acknowledged")
    return rate


def clocked(jobs: int, pause: float) -> None:
    """Enqueue jobs that note how long they have waited, one by one, so many seconds apart."""
    due = time.monotonic()
    for _ in range(jobs):
        clock.enqueue(time.monotonic())
        due += pause
        time.sleep(max(0.0, due - time.monotonic()))


def latency(stage: Stage, jobs: int = 300) -> tuple[float, float]:
    """Return p50 and p99 of the seconds from the call of enqueue to the handler's start, on an idle node of two."""
    stage.clear()
    with Node(stage, 2) as node:
        until(stage.idle)
        clocked(jobs, 0.02)
        until(lambda: len(node.notes()) >= jobs)
        return percentile(node.notes(), 0.5), percentile(node.notes(), 0.99)


def their_latency(peer: Clocked, jobs: int = 300) -> tuple[float, float]:
    """Return the same of a peer."""
    peer.clear()
    peer.start(2)
    try:
        found = peer.latency(jobs, 0.02)
    finally:
        peer.stop()
    return percentile(found, 0.5), percentile(found, 0.99)
