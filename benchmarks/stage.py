"""Where everything is measured: one server, our node on it, and what can be seen of both from outside."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo
from tasks import app, noop

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def until(condition: Callable[[], object], pause: float = 0.005, timeout: float = 600.0) -> None:
    """Wait for a condition; give up after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"nothing came of it within {timeout:g} s")
        time.sleep(pause)


def family(pid: int) -> Iterator[tuple[int, list[str]]]:
    """Yield a process and its descendants that live, each with the fields of its stat from `state` on (proc(5))."""
    stats = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            stats[int(proc.name)] = (proc / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
    generation = {pid} & stats.keys()
    while generation:
        yield from ((member, stats[member]) for member in generation)
        generation = {child for child, stat in stats.items() if int(stat[1]) in generation}


def cpu(pid: int) -> float:
    """Return the processor seconds that a process and its children have used, those that have ended included."""
    return sum(sum(int(ticks) for ticks in stat[11:15]) for _, stat in family(pid)) / TICK


def processors() -> tuple[float, float]:
    """Return the seconds that a host has kept this machine's processors from running, and all their seconds so far."""
    with Path("/proc/stat").open() as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return ticks[7] / TICK, sum(ticks) / TICK


class Stage:
    """A PostgreSQL with everything durable, and our schema in it; or the database that a DSN names."""

    def __init__(self, dsn: str | None = None) -> None:
        self.server = None if dsn else EmbeddedPostgres({"max_connections": 200})
        self.dsn = dsn or ""

    def __enter__(self) -> Self:
        if self.server is not None:
            self.server.start()
            self.dsn = make_conninfo(self.server.dsn, dbname="postgres")
        app.pool.dsn = self.dsn
        self.database = psycopg.connect(self.dsn, autocommit=True)
        migrate(self.database)
        return self

    def __exit__(self, *_: object) -> None:
        app.close()
        self.database.close()
        if self.server is not None:
            self.server.close()

    def value(self, query: str, *parameters: Any) -> Any:
        """Return the one value of a query."""
        row = self.database.execute(query, parameters).fetchone()
        return row[0] if row else None

    def clear(self) -> None:
        """Have no jobs, and as little of their past as TRUNCATE leaves."""
        self.database.execute("TRUNCATE qworker.job, qworker.job_history, qworker.unique_key")
        self.database.execute("VACUUM ANALYZE qworker.job")

    def fill(self, jobs: int) -> None:
        """Enqueue no-ops, and have the table vacuumed and analyzed as a server does that has had the time."""
        noop.enqueue_many((n,) for n in range(jobs))
        self.database.execute("VACUUM ANALYZE qworker.job")
        self.database.execute("CHECKPOINT")

    def empty(self) -> bool:
        """Whether nothing is left to do. From the newest end: a look must not walk over the rows that are gone."""
        return self.value("SELECT state FROM qworker.job ORDER BY id DESC LIMIT 1") not in ("available", "running")

    def begun(self) -> bool:
        """Whether the first job was taken."""
        return (
            self.value("SELECT count(*) FROM (SELECT FROM qworker.job WHERE state = 'running' LIMIT 1) AS r")
            or self.empty()
        )

    def behind(self) -> tuple[int, int]:
        """Return how many jobs have been enqueued, and how many rows of jobs have been deleted, so far."""
        self.database.execute("SELECT pg_stat_clear_snapshot()")
        return (
            self.value("SELECT last_value FROM qworker.job_id_seq"),
            self.value("SELECT pg_stat_get_tuples_deleted('qworker.job'::regclass)"),
        )

    def idle(self) -> bool:
        """Whether our node is up, and waits."""
        return bool(self.value("SELECT EXISTS (SELECT FROM qworker.idle_node)"))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold a snapshot open in another session."""
        with psycopg.connect(self.dsn) as holder:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            holder.execute("SELECT 1")
            yield

    @contextmanager
    def logging(self) -> Iterator[Callable[[], list[str]]]:
        """Have the server log every statement; gives what returns those of our nodes so far."""
        log = self.server.folder / "server.log"

        def statements() -> list[str]:
            lines = log.read_text(errors="replace").splitlines()
            return [
                line for line in lines if line.startswith("qworker ") and (" execute " in line or " statement:" in line)
            ]

        try:
            for setting in ("log_line_prefix = '%a|'", "log_statement = 'all'"):
                self.database.execute(f"ALTER SYSTEM SET {setting}")
            self.database.execute("SELECT pg_reload_conf()")
            yield statements
        finally:
            for name in ("log_line_prefix", "log_statement"):
                self.database.execute(f"ALTER SYSTEM RESET {name}")
            self.database.execute("SELECT pg_reload_conf()")

    def drain(self, jobs: int, processes: int = 2) -> float:
        """Return the jobs/s of a node that works off so many, from its first claim to its last acknowledgement."""
        self.clear()
        self.fill(jobs)
        return self.work_off(jobs, processes)

    def work_off(self, jobs: int, processes: int = 2) -> float:
        """Return the jobs/s at which a fresh node works off what is there."""
        with Node(self, processes) as node:
            until(lambda: node.lives() and self.begun(), 0.001)
            start = time.monotonic()
            until(self.empty, 0.01)
            return jobs / (time.monotonic() - start)

    def by_second(self) -> list[int]:
        """Return how many jobs were finished in each second, counted from the first."""
        rows = self.database.execute(
            "WITH f AS (SELECT floor(extract(epoch FROM finished_at - min(finished_at) OVER ())) AS s"
            "             FROM qworker.job_history)"
            " SELECT count(f.s) FROM generate_series(0, (SELECT max(s) FROM f)::int) AS s LEFT JOIN f USING (s)"
            " GROUP BY s ORDER BY s"
        )
        return [count for (count,) in rows]


class Node:
    """Our node under measurement; `notes` is what its handlers have written."""

    def __init__(
        self, stage: Stage, processes: int, *options: str, tasks: str = "tasks:app", quiet: bool = False
    ) -> None:
        with tempfile.NamedTemporaryFile(prefix="bench-notes-", delete=False) as notes:
            self.notes_file = Path(notes.name)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qworkerd", "--app", tasks, "--processes", str(processes), *options], cwd=HERE,
            env={**os.environ, "QWORKER_DSN": stage.dsn, "QWORKER_LOG_LEVEL": "warning", "BENCH_NOTES": notes.name},
            stderr=subprocess.DEVNULL if quiet else None,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.notes_file.unlink()

    def lives(self) -> bool:
        """Return true; end the measurement if the node has ended by itself, such as for a schema of other code."""
        if (code := self.process.poll()) is not None:
            raise SystemExit(f"the node has ended with status {code}; without `quiet` it says why")
        return True

    @property
    def workers(self) -> list[int]:
        """The pids of the supervisor's children, the scheduler among them."""
        return [pid for pid, _ in family(self.process.pid) if pid != self.process.pid]

    def notes(self) -> list[float]:
        """Return the numbers that handlers have noted."""
        return [float(line) for line in self.notes_file.read_text().split()]


class Producers:
    """Processes that enqueue at a steady pace, each from a script of one line; ended when the block is left."""

    def __init__(self, stage: Stage, scripts: Iterable[str]) -> None:
        self.processes = [
            subprocess.Popen([sys.executable, "-c", script], cwd=HERE, env={**os.environ, "QWORKER_DSN": stage.dsn},
                             stdout=subprocess.PIPE, text=True)
            for script in scripts
        ]  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def answers(self) -> list[list[float]]:
        """Wait for their end; return the numbers that each has printed."""
        return [[float(word) for word in process.communicate(timeout=600)[0].split()] for process in self.processes]

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
