"""The application that the lifecycle tests run: every kind of behaviour a handler can have.

Each run is recorded in files below $QWORKER_TEST_DIR: a lock named after the job that is taken without waiting (a
failed lock is an overlap; the kernel frees it at death), and lines in `runs`.
"""

import ctypes
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import psycopg

from qworker import App, PermanentError, Retry, TransientError, current_job
from qworkerd.worker import acknowledger

app = App()
folder = Path(os.environ.get("QWORKER_TEST_DIR", "/nonexistent"))


def note(what: str, **facts: object) -> None:
    """Append one line to the record of what handlers did; a single write, so that lines stay whole."""
    line = " ".join([what, *(f"{key}={str(value).replace(' ', '_')}" for key, value in facts.items())]) + "\n"
    with (folder / "runs").open("ab", buffering=0) as file:
        file.write(line.encode())


@contextmanager
def alone() -> Iterator[None]:
    """Take the lock of the running job; note an overlap if another process holds it."""
    with (folder / f"lock-{current_job.id}").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("overlap", job=current_job.id, pid=os.getpid())
            raise
        note("start", job=current_job.id, task=current_job.task, attempt=current_job.attempt, pid=os.getpid(),
             at=time.monotonic())  # fmt: skip
        yield
        note("end", job=current_job.id, pid=os.getpid(), at=time.monotonic())


@app.task(name="noop")
def noop(*_: Any, **__: Any) -> None:
    pass


@app.task(name="quick")
def quick() -> None:
    with alone():
        pass


@app.task(name="answer")
def answer(value: Any = 42) -> Any:
    return value


@app.task(name="nap", timeout=120)
def nap(seconds: float) -> None:
    with alone():
        time.sleep(seconds)


@app.task(name="short_nap", timeout=1.0, retry=Retry(1))
def short_nap(seconds: float) -> None:
    with alone():
        time.sleep(seconds)


@app.task(name="query", timeout=1.0, retry=Retry(1))
def query(seconds: float) -> None:
    with alone():
        current_job.connection.execute("select pg_sleep(%s)", (seconds,))


@app.task(name="own_query", timeout=1.0, retry=Retry(1))
def own_query(seconds: float, swallow: bool = False) -> None:
    with alone(), psycopg.connect(os.environ["QWORKER_DSN"]) as connection:
        while True:
            try:
                connection.execute("select pg_sleep(%s)", (seconds,))
            except BaseException:
                if not swallow:
                    raise
                connection.rollback()
            else:
                return


@app.task(name="child", timeout=1.0, retry=Retry(1))
def child(seconds: int) -> None:
    with alone():
        subprocess.run(["sleep", str(seconds)], check=True)


@app.task(name="shell", timeout=1.0, retry=Retry(1))
def shell(seconds: int) -> None:
    with alone():
        subprocess.run(f"sleep {seconds} | cat", shell=True, check=True)  # noqa: S602


@app.task(name="regex", timeout=1.0, retry=Retry(1))
def regex() -> None:
    import re

    with alone():
        re.match(r"(a+)+$", "a" * 60 + "b")


@app.task(name="gil", timeout=1.0, retry=Retry(1))
def gil() -> None:
    with alone():
        sum(itertools.repeat(1, 10**12))


@app.task(name="stubborn", timeout=1.0, retry=Retry(1))
def stubborn() -> None:
    with alone():
        while True:
            try:
                while True:
                    time.sleep(0.05)
            except BaseException:  # noqa: BLE001, S112
                continue


@app.task(name="segfault", retry=Retry(5))
def segfault(once: bool = False) -> None:
    with alone():
        if not once or current_job.attempt == 1:
            ctypes.string_at(0)


@app.task(name="exits", retry=Retry(1))
def exits(code: int) -> None:
    with alone():
        sys.exit(code)


@app.task(name="os_exits", retry=Retry(1))
def os_exits(code: int) -> None:
    with alone():
        os._exit(code)


@app.task(name="forks", retry=Retry(1))
def forks() -> None:
    with alone():
        if os.fork() == 0:
            return


@app.task(name="suicide", retry=Retry(5))
def suicide(seconds: float = 0, times: int = 1) -> None:
    with alone():
        if current_job.attempt <= times:
            time.sleep(seconds)
            note("suicide", job=current_job.id, at=time.monotonic())
            os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="flaky", retry=Retry(3, backoff=0.1, jitter=0))
def flaky(failures: int) -> str:
    with alone():
        if current_job.attempt <= failures:
            raise ValueError(f"attempt {current_job.attempt}")
        return "done"


@app.task(name="hopeless", retry=Retry(5))
def hopeless() -> None:
    with alone():
        raise PermanentError("never")


@app.task(name="later", retry=Retry(3))
def later(seconds: float) -> None:
    with alone():
        if current_job.attempt == 1:
            raise TransientError("not now", retry_after=seconds)


@app.task(name="snoozing")
def snoozing(path: str, seconds: float) -> None:
    with alone():
        if not Path(path).exists():
            Path(path).touch()
            current_job.snooze(seconds)


@app.task(name="hooked", retry=Retry(1))
def hooked(hook_fails: bool = False) -> None:
    raise ValueError("for good")


@hooked.on_failure
def reported(job: Any, error: Any) -> None:
    note("hook", job=job.id, error=error.type, message=error.message)
    if job.args.get("hook_fails"):
        raise RuntimeError("the hook is broken too")


@app.task(name="hooked_crash", retry=Retry(1))
def hooked_crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@hooked_crash.on_failure
def report_crash(job: Any, error: Any) -> None:
    note("hook", job=job.id, cause=error.cause)


@app.task(name="reports")
def reports(path: str) -> None:
    with alone():
        current_job.progress(0.4, "almost half")
        while not Path(path).exists():
            time.sleep(0.01)


@app.task(name="chatty")
def chatty() -> None:
    import logging

    logging.getLogger("shop").warning("stock is low")


if os.environ.get("QWORKER_TEST_PATIENT"):
    # What waits behind a long job is handed back, and overtaken.
    acknowledger.RELEASE_AFTER = inf

if os.environ.get("QWORKER_TEST_CRON"):

    @app.cron(os.environ["QWORKER_TEST_CRON"])
    @app.task(name="ticker")
    def ticker() -> None:
        note("tick", job=current_job.id)
