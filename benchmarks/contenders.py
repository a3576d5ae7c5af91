"""The peers of the comparison: how each is installed, filled, started, watched and stopped.

Run by the benchmark's own Python, which has none of them; `python` is one that has requirements.txt. All is as a peer
comes, durability included, but for two things: workers log warnings only, and jobs have a time limit where one exists
but is not set by default (TIME_LIMIT).
"""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Literal, LiteralString, Self
from urllib.parse import quote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

PEERS = Path(__file__).parent / "peers"

#: How long a job of Celery, Huey or Oban may take, in seconds; RQ's default. PgQueuer and Procrastinate have no limit.
TIME_LIMIT = 180


class Contender(ABC):
    """A peer with one way to run it. Methods are called in turn: install, then clear, fill, start, stop repeatedly."""

    broker: ClassVar[Literal["postgresql", "redis"]]
    #: Its script in `peers`, without `.py`.
    module: ClassVar[str]

    def __init__(self, name: str, python: str, url: str) -> None:
        self.name = name
        self.python = Path(python).absolute()
        #: Jobs filled in since the last clear.
        self.enqueued = 0
        #: Seconds of the last fill.
        self.filled = 0.0
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(PEERS),
            "PEER_URL": url,
            "PEER_TIME_LIMIT": str(TIME_LIMIT),
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def install(self) -> None:
        """Create its schema, unless it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Delete all jobs, results and history."""

    def fill(self, jobs: int) -> float:
        """Enqueue no-ops by the fastest way it documents; return the seconds, connecting included."""
        self.enqueued += jobs
        self.filled = self.script("fill", jobs)
        return self.filled

    def start(self, processes: int) -> None:
        self._workers += [
            subprocess.Popen(
                command, env=self.environment, cwd=PEERS, stdout=subprocess.DEVNULL, start_new_session=True
            )
            for command in self.commands(processes)
        ]

    @abstractmethod
    def commands(self, processes: int) -> list[list[str]]:
        """Say what to start for that many worker processes."""

    @abstractmethod
    def begun(self) -> bool:
        """Whether the first job was taken."""

    @abstractmethod
    def left(self) -> bool:
        """Whether a job is not yet acknowledged, waiting or running."""

    @abstractmethod
    def acknowledged(self) -> int:
        """Count the jobs recorded as done; where none are recorded, those enqueued that are gone."""

    def stop(self) -> float:
        """End the workers with SIGTERM, what is left of them after 15 s with SIGKILL; return the CPU seconds of all.

        A process whose parent did not wait for it is missing from the CPU seconds.
        """
        before = os.times()
        for worker in self._workers:
            worker.terminate()
        until = time.monotonic() + 15
        for worker in self._workers:
            # WNOWAIT: while the leader is a zombie, no other process can be given the session's number.
            while time.monotonic() < until and not os.waitid(
                os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ):
                time.sleep(0.01)
            while remaining := session(worker.pid):
                for pid in remaining:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
            worker.wait()
        self._workers.clear()
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def command(self, name: str, arguments: str = "") -> list[str]:
        """Complete a command that was installed beside the peers' Python."""
        return [str(self.python.with_name(name)), *shlex.split(arguments)]

    def run(self, command: list[str]) -> str:
        return subprocess.run(
            command, env=self.environment, cwd=PEERS, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def script(self, verb: str, *numbers: int) -> float:
        """Call a function of the peer's module in a process of its own; return the seconds it took."""
        printed = self.run([str(self.python), "script.py", self.module, verb, *map(str, numbers)])
        return float(printed.split()[-1])


def session(leader: int) -> list[int]:
    """List the living processes of a session; zombies are dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # proc_pid_stat(5): state, parent, group and session follow the name, which may hold anything.
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


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


class PgQueuer(OnPostgres):
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
        self.batch = batch

    def create(self) -> None:
        self.run([*self.pgqueuer, "install"])
        self.run([*self.pgqueuer, "autovac"])

    def commands(self, processes: int) -> list[list[str]]:
        size = ["--batch-size", str(self.batch)] if self.batch else []
        run = [*self.pgqueuer, "run", f"{self.module}:{self.handler}", "--heartbeat-timeout", "30", *size]
        return [[*run, "--log-level", "WARNING"]] * processes

    def start(self, processes: int) -> None:
        if self.handler == "asynchronous":
            descriptor, self.environment["LATENCY_FILE"] = tempfile.mkstemp(prefix="latency-")
            os.close(descriptor)
        super().start(processes)

    def stop(self) -> float:
        seconds = super().stop()
        if lags := self.environment.pop("LATENCY_FILE", None):
            Path(lags).unlink()
        return seconds

    def latency(self, jobs: int, interval: float) -> list[float]:
        """Enqueue jobs one by one, `interval` seconds apart, to the started workers of an asynchronous handler.

        Return for each the seconds from before its enqueue to its handler's first act. Raises TimeoutError when some
        are missing 60 s after the last enqueue.
        """
        if "LATENCY_FILE" not in self.environment:
            raise ValueError("latency() needs the asynchronous handler, and start() before")
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


class Redis:
    """A connection to Redis, for commands that are answered by a number or a word."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port or 6379), timeout=10)
        self.replies = self.socket.makefile("rb")

    def call(self, *words: str) -> int | str:
        # https://redis.io/docs/latest/develop/reference/protocol-spec/
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        reply = self.replies.readline().decode().strip()
        if reply.startswith(":"):
            return int(reply[1:])
        if reply.startswith("+"):
            return reply[1:]
        raise OSError(f"redis answered {reply!r} to {words[0]}")


class RedisServer:
    """A Redis on loopback that lives in a folder, with the built-in configuration: snapshots, no append-only file."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{port}/0"
        self.command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", str(folder)]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            try:
                Redis(self.url).call("PING")
            except OSError:
                if time.monotonic() > until:
                    self.__exit__()
                    raise
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


class OnRedis(Contender):
    broker = "redis"
    #: Commands that count the jobs left in each place, in the order in which a job passes them: so none slips by.
    places: ClassVar[list[tuple[str, str]]]
    #: A command that counts those that failed for good, where they are kept.
    failed: ClassVar[tuple[str, str] | None] = None

    def __init__(self, name: str, python: str, url: str) -> None:
        super().__init__(name, python, url)
        self.url = url
        self.redis = Redis(url)

    def install(self) -> None:
        pass

    def clear(self) -> None:
        self.redis.call("FLUSHDB")
        self.enqueued = 0

    def begun(self) -> bool:
        return self.count(*self.places[0]) < self.enqueued

    def left(self) -> bool:
        return any(self.count(*place) for place in self.places)

    def acknowledged(self) -> int:
        others = [*self.places, *([self.failed] if self.failed else [])]
        return self.enqueued - sum(self.count(*place) for place in others)

    def count(self, *words: str) -> int:
        return int(self.redis.call(*words))


class Celery(OnRedis):
    """Celery, prefork. By default a message is acknowledged when a process accepts it: before the task has run.

    Between Redis and the worker's note of it, for less than 1 ms, a message is in neither place.
    """

    module = "celery_noops"
    places: ClassVar = [("LLEN", "celery"), ("HLEN", "unacked")]

    def __init__(self, python: str, url: str) -> None:
        super().__init__("Celery 5.7, prefork", python, url)

    def commands(self, processes: int) -> list[list[str]]:
        options = f"--pool prefork -c {processes} --time-limit {TIME_LIMIT} --loglevel WARNING"
        return [self.command("celery", f"-A {self.module} worker {options}")]


class Rq(OnRedis):
    """RQ, a pool of its default workers, which fork for each job."""

    module = "rq_noops"
    places: ClassVar = [
        ("LLEN", "rq:queue:default"),
        ("LLEN", "rq:queue:default:intermediate"),
        ("ZCARD", "rq:wip:default"),
    ]
    # What has finished is forgotten after 500 s by default, so it cannot be counted after a longer run.
    failed = ("ZCARD", "rq:failed:default")

    def __init__(self, python: str, url: str) -> None:
        super().__init__("RQ 3.0", python, url)

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("rq", f"worker-pool default -n {processes} -u {self.url} --logging-level WARNING")]


class Dramatiq(OnRedis):
    """Dramatiq, a thread a process. Its worker prefetches; a message is deleted when it is acknowledged."""

    module = "dramatiq_noops"
    places: ClassVar = [("HLEN", "dramatiq:default.msgs"), ("HLEN", "dramatiq:default.DQ.msgs")]
    failed = ("HLEN", "dramatiq:default.XQ.msgs")

    def __init__(self, python: str, url: str) -> None:
        super().__init__("Dramatiq 2.2, a thread a process", python, url)

    def begun(self) -> bool:
        return self.count("LLEN", "dramatiq:default") < self.enqueued

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("dramatiq", f"{self.module} --processes {processes} --threads 1")]


def pgqueuer(dsn: str, python: str) -> tuple[PgQueuer, PgQueuer]:
    """Return PgQueuer with an asynchronous no-op twice: with its default batch, and with the one that drains best."""
    return PgQueuer(python, dsn, "asynchronous"), PgQueuer(python, dsn, "asynchronous", 100)


@contextmanager
def contenders(dsn: str, python: str, folder: Path) -> Iterator[list[Contender]]:
    """Yield all peers, installed, with a Redis in that folder; end what is left of them."""
    with RedisServer(folder) as redis:
        on_postgres: list[OnPostgres] = [
            PgQueuer(python, dsn, "blocking"),
            *pgqueuer(dsn, python),
            Procrastinate(python, dsn),
            Oban(python, dsn, "blocking"),
            Oban(python, dsn, "asynchronous"),
            Huey(python, dsn),
        ]
        everyone = [*on_postgres, Celery(python, redis.url), Rq(python, redis.url), Dramatiq(python, redis.url)]
        try:
            for contender in everyone:
                contender.install()
            yield everyone
        finally:
            for contender in everyone:
                contender.stop()
            for contender in on_postgres:
                contender.database.close()
