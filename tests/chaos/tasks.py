"""The application under fire: handlers that leave effects, each in its own way to end."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from qworker import PermanentError, Retry, current_job
from tests.lifecycle.application import alone, app, folder

__all__ = ["app"]

#: What is expected, and what came of it; each row of `expected` is committed with its job.
TABLES = """
CREATE TABLE expected (job bigint, task text, state text);
CREATE TABLE ran (job bigint, attempt int);
CREATE TABLE counter (part int PRIMARY KEY, number bigint);
INSERT INTO counter SELECT part, 0 FROM generate_series(0, 7) AS part;
CREATE TABLE counted (job bigint);
CREATE TABLE ticked (job bigint, tick float8);
"""

#: Faults may cost as many attempts as they like: none of these jobs may fail for one.
PATIENT = Retry(1000, backoff=0.05, factor=1.5, cap=0.5)


@contextmanager
def recorded() -> Iterator[None]:
    """Be alone with the job, and leave a row that commits by itself."""
    with alone():
        yield
        with psycopg.connect(os.environ["QWORKER_DSN"], autocommit=True, connect_timeout=3) as connection:
            connection.execute("INSERT INTO ran VALUES (%s, %s)", (current_job.id, current_job.attempt))


@app.task(retry=PATIENT, timeout=8)
def works(seconds: float) -> None:
    with recorded():
        time.sleep(seconds)


@app.task(retry=PATIENT, timeout=8, transactional=True)
def counts(seconds: float) -> str:
    with alone():
        current_job.connection.execute("INSERT INTO counted VALUES (%s)", (current_job.id,))
        time.sleep(seconds)
        # The counter last: whoever counts beside this one waits for the commit, not for the work.
        current_job.connection.execute("UPDATE counter SET number = number + 1 WHERE part = %s", (current_job.id % 8,))
        return "counted"


@app.task(retry=PATIENT, timeout=8)
def fails_first(seconds: float) -> None:
    with recorded():
        time.sleep(seconds)
        if current_job.attempt == 1:
            raise ValueError("the first attempt fails")


@app.task(retry=PATIENT, timeout=8)
def crashes_first(seconds: float) -> None:
    with recorded():
        time.sleep(seconds)
        if current_job.attempt == 1:
            ctypes.string_at(0)


@app.task(retry=PATIENT, timeout=0.5)
def hangs_first(seconds: float) -> None:
    with recorded():
        while current_job.attempt == 1:
            try:
                time.sleep(seconds + 10)
            except BaseException:  # noqa: BLE001, S112 - what only a kill ends
                continue


@app.task(retry=PATIENT, timeout=8)
def snoozes_first(seconds: float) -> None:
    mark = folder / f"snoozed-{current_job.id}"
    with recorded():
        if not mark.exists():
            mark.touch()
            current_job.snooze(seconds)


@app.task(retry=PATIENT, timeout=8)
def hopeless(seconds: float) -> None:
    with recorded():
        time.sleep(seconds)
    raise PermanentError("never")


@app.cron("* * * * * *")
@app.task(retry=PATIENT, timeout=8)
def ticks() -> None:
    with alone(), psycopg.connect(os.environ["QWORKER_DSN"], autocommit=True, connect_timeout=3) as connection:
        tick = "SELECT id, extract(epoch FROM (meta ->> 'tick')::timestamptz)::float8 FROM qworker.job WHERE id = %s"
        connection.execute(f"INSERT INTO ticked {tick}".encode(), (current_job.id,))
