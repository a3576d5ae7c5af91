"""Index the standard library: a job for each file, and four jobs that go the ways jobs go."""

import ast
import ctypes
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from qworker import App, Retry, current_job

LIBRARY = Path(sysconfig.get_path("stdlib"))
#: Seconds between two ticks of `pulse`.
PULSE = 3

TABLE = """
    CREATE TABLE IF NOT EXISTS stdlib_file (
        path       text PRIMARY KEY,
        functions  integer NOT NULL,
        classes    integer NOT NULL,
        lines      integer NOT NULL,
        problem    text
    )
"""
UPSERT = """
    INSERT INTO stdlib_file (path, functions, classes, lines, problem) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (path) DO UPDATE
    SET functions = excluded.functions, classes = excluded.classes, lines = excluded.lines, problem = excluded.problem
"""
TOTALS = """
    SELECT count(*), coalesce(sum(functions), 0), coalesce(sum(classes), 0), coalesce(sum(lines), 0), count(problem)
      FROM stdlib_file
"""

#: Where the database is: $QWORKER_DSN.
app = App()


@app.task(queue="files", timeout=30)
def index(path: str) -> None:
    """Count what is in one file and write a row; run again, it writes the same row again."""
    source = (LIBRARY / path).read_bytes()
    counts: Counter[type] = Counter()
    problem = None
    try:
        with warnings.catch_warnings(action="ignore"):
            counts.update(map(type, statements(ast.parse(source))))
    except (SyntaxError, ValueError) as error:  # the library's tests hold files that are wrong on purpose
        problem = str(error)
    functions = counts[ast.FunctionDef] + counts[ast.AsyncFunctionDef]
    row = (path, functions, counts[ast.ClassDef], len(source.splitlines()), problem)
    # Committed when the handler returns, rolled back when it raises.
    current_job.connection.execute(UPSERT, row)


@app.task(retry=Retry(3, backoff=0.5, factor=2, jitter=0))
def flaky() -> str:
    """Succeed in the last of three attempts; the pause before each doubles."""
    if current_job.attempt < current_job.max_attempts:
        raise ConnectionError("peer hung up")
    return "sent"


@app.task(timeout=1, retry=False)
def sleepy() -> None:
    """Sleep for longer than a job of this task may run."""
    time.sleep(60)


@app.task(retry=Retry(10))
def deadly() -> None:
    """Read from address 0: the kernel kills the process. After three dead workers the job is not tried again."""
    ctypes.string_at(0)


@app.cron(f"* * * * * */{PULSE}", misfire="all")
@app.task()
def pulse() -> int:
    """Count every few seconds how many files are done; once, however many nodes run."""
    return totals(current_job.connection).files


class Totals(NamedTuple):
    """What is in the table."""

    files: int
    functions: int
    classes: int
    lines: int
    #: Files that are not valid Python.
    problems: int


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module, a function, a branch ...; expressions hold neither functions nor classes."""
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for statement in getattr(node, part, ()):
            yield statement
            yield from statements(statement)


def files() -> list[str]:
    """Name every .py file of the standard library, without what has been installed beside it."""
    foreign = {"site-packages", "dist-packages"}
    found = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return sorted(str(path) for path in found if foreign.isdisjoint(path.parts))


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make the table, if it is not there."""
    conn.execute(TABLE)


def totals(conn: psycopg.Connection[Any]) -> Totals:
    """Sum up the table."""
    return Totals(*conn.execute(TOTALS).fetchone() or (0, 0, 0, 0, 0))
