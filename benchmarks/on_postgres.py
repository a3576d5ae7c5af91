"""The peers that keep their jobs in PostgreSQL."""

import os
import tempfile
import time
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, LiteralString
from urllib.parse import quote

import psycopg
from contender import Contender
from psycopg.conninfo import conninfo_to_dict


class OnPostgres(Contender):
    broker = "postgresql"
    #: All that a clear empties, the jobs first.
    tables: ClassVar[LiteralString]
    #: A row of true while the job that comes first, number 1, is waiting.
    first_waits: ClassVar[LiteralString]
    #: A row while a job is waiting or running. From the newest end: a look must not walk over the rows that are done.
    unfinished: ClassVar[LiteralString]
    #: Counts the jobs that are recorded as done.
    done: ClassVar[LiteralString]

    def __init__(self, name: str, python: str, dsn: str) -> None:
        where = {"password": "", **conninfo_to_dict(dsn)}
        url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map(
            {key: quote(str(value), safe="") for key, value in where.items()}
        )
        super().__init__(name, python, url)
        self.environment |= {"PGDSN": url, "OBAN_DSN": url}
        self.database = psycopg.connect(dsn, autocommit=True)

    def install(self) -> None:
        jobs = self.tables.split(",")[0]
        if self.database.execute("SELECT to_regclass(%s) IS NULL", (jobs,)).fetchone() == (True,):
            self.create()

    @abstractmethod
    def create(self) -> None:
        """Create its schema."""

    def clear(self) -> None:
        self.database.execute(f"TRUNCATE {self.tables} RESTART IDENTITY CASCADE")
        self.enqueued = 0

    def fill(self, jobs: int) -> float:
        seconds = super().fill(jobs)
        self.database.execute(f"VACUUM ANALYZE {self.tables}")
        return seconds

    def begun(self) -> bool:
        return self.database.execute(self.first_waits).fetchone() != (True,)

    def left(self) -> bool:
        return self.database.execute(self.unfinished).fetchone() is not None

    def acknowledged(self) -> int:
        return int(self.database.execute(self.done).fetchall()[0][0])


class Clocked(OnPostgres):
    """A peer whose handler notes how late it is in LATENCY_FILE, and whose script can `produce`."""

    #: Whether this way to run it does that.
    clocked = True

    def start(self, processes: int) -> None:
        if self.clocked:
            descriptor, self.environment["LATENCY_FILE"] = tempfile.mkstemp(prefix="latency-")
            os.close(descriptor)
        super().start(processes)

    def stop(self) -> float:
        seconds = super().stop()
        if lags := self.environment.pop("LATENCY_FILE", None):
            Path(lags).unlink()
        return seconds

    def latency(self, jobs: int, interval: float) -> list[float]:
        """Enqueue jobs one by one, `interval` seconds apart, to the started workers.

        Return for each the seconds from before its enqueue to its handler's first act. Raises TimeoutError when some
        are missing 60 s after the last enqueue.
        """
        if "LATENCY_FILE" not in self.environment:
            raise ValueError(f"{self.name}: latency() needs a handler that notes it, and start() before")
        lags = Path(self.environment["LATENCY_FILE"])
        os.truncate(lags, 0)
        self.enqueued += jobs
        self.script("produce", jobs, round(interval * 1e6))
        until = time.monotonic() + 60
        while len(found := lags.read_text().split()) < jobs:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(found)} of {jobs} jobs ran")
            time.sleep(0.05)
        return [float(lag) for lag in found]


class PgQueuer(Clocked):
    """PgQueuer, a command a process; 10 jobs at once unless `batch` says otherwise."""

    module = "pgqueuer_noops"
    tables = "pgqueuer, pgqueuer_log"
    first_waits = "SELECT id = 1 AND status = 'queued' FROM pgqueuer ORDER BY id LIMIT 1"
    unfinished = "SELECT 1 FROM pgqueuer ORDER BY id DESC LIMIT 1"
    done = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"

    def __init__(
        self,
        python: str,
        dsn: str,
        handler: Literal["blocking", "asynchronous"] = "blocking",
        batch: int | None = None,
    ) -> None:
        kind = "asyncio.to_thread" if handler == "blocking" else "async"
        super().__init__(f"PgQueuer 1.6, {kind}" + (f", batch {batch}" if batch else ""), python, dsn)
        self.pgqueuer = [str(self.python), "-m", "pgqueuer"]
        self.handler = handler
        self.clocked = handler == "asynchronous"
        self.batch = batch

    def create(self) -> None:
        self.run([*self.pgqueuer, "install"])
        self.run([*self.pgqueuer, "autovac"])

    def commands(self, processes: int) -> list[list[str]]:
        size = ["--batch-size", str(self.batch)] if self.batch else []
        run = [*self.pgqueuer, "run", f"{self.module}:{self.handler}", "--heartbeat-timeout", "30", *size]
        return [[*run, "--log-level", "WARNING"]] * processes

    def single(self, jobs: int) -> float:
        """Enqueue jobs one by one on one connection; return how many a second."""
        self.enqueued += jobs
        return jobs / self.script("single", jobs)


class Procrastinate(OnPostgres):
    """Procrastinate, a command a process, one job at a time each; synchronous tasks run in a thread."""

    module = "procrastinate_noops"
    tables = "procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers"
    first_waits = "SELECT status = 'todo' FROM procrastinate_jobs ORDER BY id LIMIT 1"
    unfinished = "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') ORDER BY id DESC LIMIT 1"
    done = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"

    def __init__(self, python: str, dsn: str) -> None:
        super().__init__("Procrastinate 3.10", python, dsn)

    def create(self) -> None:
        self.run(self.command("procrastinate", f"--app {self.module}.app schema --apply"))

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("procrastinate", f"--log-level warning --app {self.module}.app worker")] * processes


class Oban(OnPostgres):
    """Oban, a command a process, 10 jobs at once each as in its documentation."""

    module = "oban_noops"
    tables = "oban_jobs"
    first_waits = "SELECT state = 'available' FROM oban_jobs ORDER BY id LIMIT 1"
    # No index tells what is unfinished from the newest end; the newest row alone does until it is done.
    unfinished = """
        SELECT 1
        WHERE (SELECT state FROM oban_jobs ORDER BY id DESC LIMIT 1) IN ('available', 'executing')
            OR EXISTS (
                SELECT FROM oban_jobs
                WHERE state IN ('available', 'scheduled', 'suspended', 'executing', 'retryable')
            )
    """
    done = "SELECT count(*) FROM oban_jobs WHERE state = 'completed'"

    def __init__(self, python: str, dsn: str, handler: Literal["blocking", "asynchronous"] = "blocking") -> None:
        super().__init__("Oban 0.7, " + ("asyncio.to_thread" if handler == "blocking" else "async"), python, dsn)
        self.handler = handler

    def create(self) -> None:
        self.run(self.command("oban", "install"))

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("oban", "start --queues default:10 --log-level WARNING")] * processes

    def script(self, verb: str, *numbers: int) -> float:
        return super().script("fill_blocking" if (verb, self.handler) == ("fill", "blocking") else verb, *numbers)


class Huey(OnPostgres):
    """Huey, worker processes. A job is deleted when it is taken, before it runs: one that is running is not `left`.

    `acknowledged` is not taken from a record, as there is none: it counts the jobs that are gone.
    """

    module = "huey_noops"
    tables = "huey_task, huey_schedule, huey_kv, huey_counter"
    first_waits = "SELECT id = 1 FROM huey_task ORDER BY id LIMIT 1"
    unfinished = "SELECT 1 FROM huey_task ORDER BY id DESC LIMIT 1"
    done = "SELECT %s - count(*) FROM huey_task"

    def __init__(self, python: str, dsn: str) -> None:
        super().__init__("Huey 3.5, PostgreSQL", python, dsn)

    def create(self) -> None:
        self.script("install")

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("huey_consumer", f"{self.module}.huey -k process -w {processes} -q")]

    def acknowledged(self) -> int:
        return int(self.database.execute(self.done, (self.enqueued,)).fetchall()[0][0])


def pgqueuer(dsn: str, python: str) -> tuple[PgQueuer, PgQueuer]:
    """Return PgQueuer with an asynchronous no-op twice: with its default batch, and with the one that drains best."""
    return PgQueuer(python, dsn, "asynchronous"), PgQueuer(python, dsn, "asynchronous", 100)
