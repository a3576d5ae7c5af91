"""How fast a node drains a queue of no-op jobs, alone or in turns with PgQueuer; see README.md."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import psycopg
from noops import app, noop
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres

HERE = Path(__file__).parent


def ended(database: psycopg.Connection[Any], table: str) -> bool:
    # From the newest end: a look must not walk over the rows that are gone.
    return database.execute(f"SELECT FROM {table} ORDER BY id DESC LIMIT 1").rowcount == 0


def await_true(condition: Callable[[], bool], pause: float, patience: float = 120.0) -> None:
    until = time.perf_counter() + patience
    while not condition():
        if time.perf_counter() > until:
            raise SystemExit(f"nothing came of it within {patience:g} s")
        time.sleep(pause)


def measure(database: psycopg.Connection[Any], table: str, begun: Callable[[], bool], jobs: int) -> float:
    await_true(begun, 0.001)
    start = time.perf_counter()
    await_true(lambda: ended(database, table), 0.01)
    return jobs / (time.perf_counter() - start)


def stop(processes: list[subprocess.Popen[bytes]]) -> float:
    """End them; return the processor seconds they and their children have used."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    before = os.times()
    for process in processes:
        process.wait(60)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def ours(dsn: str, jobs: int, processes: int) -> tuple[float, float, float]:
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute("TRUNCATE qworker.job, qworker.job_history")
        start = time.perf_counter()
        noop.enqueue_many((n,) for n in range(jobs))
        filled = jobs / (time.perf_counter() - start)
        database.execute("VACUUM ANALYZE qworker.job")
        node = subprocess.Popen(
            [sys.executable, "-m", "qworkerd", "--app", "noops:app", "--processes", str(processes)],
            env={**os.environ, "QWORKER_DSN": dsn, "QWORKER_LOG_LEVEL": "warning"}, cwd=HERE,
        )  # fmt: skip
        first = "SELECT state = 'available' FROM qworker.job ORDER BY id LIMIT 1"
        rate = measure(database, "qworker.job", lambda: database.execute(first).fetchone() != (True,), jobs)
        return rate, filled, stop([node]) / jobs * 1e6


def theirs(dsn: str, jobs: int, processes: int, python: str) -> tuple[float, float, float]:
    where = conninfo_to_dict(dsn)
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map({"password": "", **where})
    env = {**os.environ, "PGDSN": url, "PYTHONPATH": str(HERE)}
    pgq = [python, "-m", "pgqueuer"]
    with psycopg.connect(dsn, autocommit=True) as database:
        if database.execute("SELECT to_regclass('pgqueuer') IS NULL").fetchone() == (True,):
            subprocess.run([*pgq, "install"], env=env, check=True, stdout=subprocess.DEVNULL)
            subprocess.run([*pgq, "autovac"], env=env, check=True, stdout=subprocess.DEVNULL)
        database.execute("TRUNCATE pgqueuer, pgqueuer_log")
        start = time.perf_counter()
        subprocess.run([python, HERE / "pgqueuer_noops.py", "fill", str(jobs)], env=env, check=True)
        filled = jobs / (time.perf_counter() - start)
        database.execute("VACUUM ANALYZE pgqueuer")
        command = [*pgq, "run", "pgqueuer_noops:main", "--batch-size", "100", "--heartbeat-timeout", "30"]
        workers = [subprocess.Popen(command, env=env, cwd=HERE) for _ in range(processes)]
        first = "SELECT status = 'queued' FROM pgqueuer ORDER BY id LIMIT 1"
        rate = measure(database, "pgqueuer", lambda: database.execute(first).fetchone() != (True,), jobs)
        return rate, filled, stop(workers) / jobs * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="a Python that has pgqueuer[asyncpg]")
    parser.add_argument("--hold", action="store_true", help="hold a snapshot open in another session")
    parser.add_argument("--dsn", help="an empty database; default: an embedded server")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"qworker": [], "pgqueuer": []}
    with ExitStack() as stack:
        server = None if options.dsn else stack.enter_context(EmbeddedPostgres())
        dsn = options.dsn or make_conninfo(server.dsn, dbname="postgres") if server or options.dsn else ""
        app.pool.dsn = dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
        for _ in range(options.rounds):
            for name in ("qworker", *(["pgqueuer"] if options.peer else [])):
                with psycopg.connect(dsn) if options.hold else nullcontext() as holder:
                    if holder is not None:
                        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        holder.execute("SELECT 1")
                    run = (lambda: ours(dsn, options.jobs, options.processes)) if name == "qworker" else (
                        lambda: theirs(dsn, options.jobs, options.processes, options.peer))  # fmt: skip
                    rate, filled, cpu = run()
                rates[name].append(rate)
                report = {"name": name, "drain": round(rate), "enqueue": round(filled), "cpu_us_per_job": round(cpu, 1)}
                print(json.dumps(report), flush=True)
    medians = {name: round(statistics.median(found)) for name, found in rates.items() if found}
    if options.peer:
        medians["ratio"] = round(medians["qworker"] / medians["pgqueuer"], 2)
    print(json.dumps({"median": medians}))


if __name__ == "__main__":
    main()
