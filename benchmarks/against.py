"""Compare the speed of a commit with an earlier one, in turns on one server; see README.md.

Each commit has a git worktree and a virtual environment of its own. What differs between commits (modules, settings,
columns other than `state`) is not touched: only App, task, enqueue, enqueue_many, using, and `python -m qworkerd`.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from stage import HERE, until

from qworkerd.embedded import EmbeddedPostgres

REACH = 0.97
DRAINS = (20_000, 1_000_000)

#: The application that both commits run; `python -c` and the node import it from a folder beside the worktrees.
APPLICATION = """
import os, time
from qworker import App
app = App(os.environ["QWORKER_DSN"])
NOTES = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.task(name="noop", timeout=30)
def noop(n: int) -> None:
    pass

@app.task(name="clock", timeout=30)
def clock(called: float) -> None:
    os.write(NOTES, b"%.6f\\n" % (time.monotonic() - called))
"""
MIGRATE = """
import os, psycopg
from qworker.migrations import migrate
with psycopg.connect(os.environ["QWORKER_DSN"], autocommit=True) as connection:
    migrate(connection)
"""
FILL = "from tasks import *\nnoop.enqueue_many((n,) for n in range({jobs}))"
#: Each prints calls or jobs a second; what comes before the clock starts connects and plans.
SINGLE = """
from tasks import *
for n in range(100): noop.enqueue(n)
start = time.perf_counter()
for n in range({calls}): noop.enqueue(n)
print({calls} / (time.perf_counter() - start))
"""
MANY = """
from tasks import *
noop.enqueue_many([(1,)])
start = time.perf_counter()
noop.enqueue_many((n,) for n in range({jobs}))
print({jobs} / (time.perf_counter() - start))
"""
JOINED = """
import psycopg
from tasks import *
with psycopg.connect(os.environ["QWORKER_DSN"]) as connection:
    noop.using(connection).enqueue_many([(1,)])
    connection.commit()
    start = time.perf_counter()
    noop.using(connection).enqueue_many((n,) for n in range({jobs}))
    connection.commit()
    print({jobs} / (time.perf_counter() - start))
"""
CLOCKED = """
from tasks import *
due = time.monotonic()
for n in range({jobs}):
    clock.enqueue(time.monotonic())
    due += 0.02
    time.sleep(max(0.0, due - time.monotonic()))
"""


class Side:
    """A commit, checked out and installed, with a database of its own that each figure finds empty."""

    def __init__(self, commit: str, folder: Path, server: EmbeddedPostgres) -> None:
        self.commit = commit
        self.tree = folder / "tree"
        self.python = folder / "venv" / "bin" / "python"
        self.notes = folder / "notes"
        self.database = folder.name
        self.server_dsn = make_conninfo(server.dsn, dbname="postgres")
        self.dsn = make_conninfo(server.dsn, dbname=self.database)
        self.environment = {
            **os.environ, "QWORKER_DSN": self.dsn, "QWORKER_LOG_LEVEL": "warning", "BENCH_NOTES": str(self.notes),
            "PYTHONPATH": str(folder),
        }  # fmt: skip
        (folder / "tasks.py").write_text(APPLICATION)

    def install(self) -> None:
        """Check the commit out, and install it into a virtual environment."""
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", self.tree, self.commit], cwd=HERE, check=True)
        subprocess.run([sys.executable, "-m", "venv", self.python.parents[1]], check=True)
        pip = [self.python, "-m", "pip", "install", "--quiet", "--editable", f"{self.tree}[demo]"]
        subprocess.run(pip, check=True)

    def remove(self) -> None:
        """Take the worktree out of the repository."""
        subprocess.run(["git", "worktree", "remove", "--force", self.tree], cwd=HERE, check=False)

    def renew(self) -> None:
        """Have an empty database, migrated."""
        with psycopg.connect(self.server_dsn, autocommit=True) as connection:
            name = sql.Identifier(self.database)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        self.notes.write_text("")
        self.script(MIGRATE)

    def script(self, body: str) -> str:
        """Run a script with this commit's Python; return what it printed."""
        return subprocess.run(
            [self.python, "-c", body], env=self.environment, cwd=self.notes.parent, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip

    @contextmanager
    def node(self) -> Iterator[None]:
        """Have a node of two run."""
        command = [self.python, "-m", "qworkerd", "--app", "tasks:app", "--processes", "2"]
        process = subprocess.Popen(command, env=self.environment, cwd=self.notes.parent)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def rate(self, body: str, **numbers: int) -> float:
        """Return what a script prints, on an empty database."""
        self.renew()
        return float(self.script(body.format(**numbers)))

    def drain(self, jobs: int) -> float:
        """Return the jobs/s from the first claim to the last acknowledgement."""
        self.renew()
        self.script(FILL.format(jobs=jobs))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE qworker.job")
            connection.execute("CHECKPOINT")

            # From the newest end when it ends: a look must not walk over the rows that are gone.
            first = "SELECT state FROM qworker.job ORDER BY id LIMIT 1"
            last = "SELECT state FROM qworker.job ORDER BY id DESC LIMIT 1"

            def state(query: LiteralString) -> Any:
                row = connection.execute(query).fetchone()
                return row[0] if row else None

            with self.node():
                until(lambda: state(first) != "available", 0.001)
                start = time.monotonic()
                until(lambda: state(last) not in ("available", "running"), 0.01)
                return jobs / (time.monotonic() - start)

    def latency(self, jobs: int) -> float:
        """Return the p50 of the seconds from the call of enqueue to the handler's start, on an idle node."""
        self.renew()
        with self.node():
            self.script(CLOCKED.format(jobs=20))
            until(lambda: len(self.noted()) == 20, 0.05)  # noqa: PLR2004
            self.script(CLOCKED.format(jobs=jobs))
            until(lambda: len(self.noted()) == 20 + jobs, 0.05)
        return statistics.median(self.noted()[20:])

    def noted(self) -> list[float]:
        """Return the latencies that handlers have noted."""
        return [float(line) for line in self.notes.read_text().split()]

    def figures(self, drains: list[int], calls: int, jobs: int, clocked: int) -> dict[str, float]:
        """Return a figure for each bar, more is better."""
        found = {f"drain {size:,}": self.drain(size) for size in drains}
        found["single enqueue"] = self.rate(SINGLE, calls=calls)
        found["enqueue_many"] = self.rate(MANY, jobs=jobs)
        found["enqueue_many, joined"] = self.rate(JOINED, jobs=jobs)
        found["1 / idle latency p50"] = 1 / self.latency(clocked)
        return found


def summary(base: list[dict[str, float]], head: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return for each figure the medians, and the median, lowest and highest of the ratios of each round."""
    rows = []
    for name in base[0]:
        ratios = [after[name] / before[name] for before, after in zip(base, head, strict=True)]
        rows.append({
            "what": name, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            "base": statistics.median(before[name] for before in base),
            "head": statistics.median(after[name] for after in head), "rounds": len(ratios),
            "passed": statistics.median(ratios) >= REACH,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the summary as Markdown."""
    lines = ["| what | ratio | spread | base | head | n | |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['base']:,.0f}"
        f" | {row['head']:,.0f} | {row['rounds']} | {'reached' if row['passed'] else '**not reached**'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Be the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", metavar="BASE", help="the earlier commit")
    parser.add_argument("head", metavar="HEAD", nargs="?", default="HEAD", help="the later one (default: HEAD)")
    parser.add_argument("--rounds", type=int, default=10, help="the side that begins changes (default: 10)")
    parser.add_argument("--drain", type=int, nargs="+", default=DRAINS, metavar="N", help="default: 20000 1000000")
    parser.add_argument("--calls", type=int, default=3000, help="of enqueue (default: 3000)")
    parser.add_argument("--jobs", type=int, default=100_000, help="of enqueue_many (default: 100000)")
    parser.add_argument("--clocked", type=int, default=300, help="jobs on an idle node (default: 300)")
    parser.add_argument("--json", type=Path, help="write the figures of all rounds there")
    options = parser.parse_args()
    numbers = (list(options.drain), options.calls, options.jobs, options.clocked)
    with (
        tempfile.TemporaryDirectory(prefix="qworker-against-") as folder,
        EmbeddedPostgres({"max_connections": 200}) as server,
    ):
        sides = []
        found: list[list[dict[str, float]]] = [[], []]
        try:
            for name, commit in (("base", options.base), ("head", options.head)):
                place = Path(folder) / name
                place.mkdir()
                sides.append(Side(commit, place, server))
                sides[-1].install()
            for number in range(options.rounds):
                for side in (0, 1) if number % 2 == 0 else (1, 0):
                    found[side].append(sides[side].figures(*numbers))
                rows = summary(*found)
                ratios = ", ".join(f"{n} {found[1][-1][n] / found[0][-1][n]:.3f}" for n in found[0][-1])
                print(f"  round {number + 1}: {ratios}", file=sys.stderr, flush=True)
                if options.json:  # what a run of hours has is not lost
                    results = {"base": options.base, "head": options.head, "rows": rows, "rounds": found}
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
        finally:
            for side in sides:
                with suppress(OSError):
                    side.remove()
    print(table(rows))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
