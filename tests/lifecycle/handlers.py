"""More of the application under test: handlers for the life of a single job, and above all for its bad ends."""

import asyncio
import ctypes
import itertools
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog

from qworker import (
    CancelInterrupt,
    Interrupt,
    Job,
    JobFailed,
    PermanentError,
    Retry,
    current_job,
)
from tests.lifecycle.application import alone, app, note

__all__ = ["app"]

SOON = Retry(2, backoff=0.05, jitter=0)


def hold(path: str) -> None:
    """Wait until a file is there."""
    while not Path(path).exists():
        time.sleep(0.005)


@app.task(name="impatient", retry=Retry(3, backoff=3600, delays=lambda job, _error: 0.01 * job.attempt))
def impatient() -> None:
    raise ConnectionResetError("once more")


@app.task(name="hold")
def held(path: str) -> None:
    with alone():
        hold(path)


# Every way to be stuck. The second attempt returns at once.


def _query() -> None:
    current_job.connection.execute("SELECT pg_sleep(60) /* lent */")


def _own_query() -> None:
    with psycopg.connect(os.environ["QWORKER_DSN"]) as connection:
        connection.execute("SELECT pg_sleep(60) /* own */")


def _own_query_swallowed() -> None:
    connection = psycopg.connect(os.environ["QWORKER_DSN"], autocommit=True)
    while True:
        try:
            connection.execute("SELECT pg_sleep(60) /* swallowed */")
        except BaseException:  # noqa: BLE001, S112
            continue


def _swallow() -> None:
    while True:
        try:
            while True:
                time.sleep(0.05)
        except BaseException:  # noqa: BLE001, S112
            continue


WAYS: dict[str, Callable[[], object]] = {
    "sleep": lambda: time.sleep(60),
    "query": _query,
    "own query": _own_query,
    "swallowed query": _own_query_swallowed,
    "subprocess": lambda: subprocess.run(["sleep", "61"], check=True),
    "shell": lambda: subprocess.run("sleep 62 | cat", shell=True, check=True),  # noqa: S602
    "regex": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
    "GIL": lambda: sum(itertools.repeat(1, 10**12)),
    "swallow": _swallow,
}


@app.task(name="stuck", timeout=0.5, retry=SOON)
def stuck(way: str) -> str:
    with alone():
        if current_job.attempt == 1:
            WAYS[way]()
        return "second attempt"


# Every way to take the worker down. The second attempt returns at once.

DEATHS: dict[str, Callable[[], object]] = {
    "sys.exit": lambda: sys.exit(3),
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(1)": lambda: os._exit(1),
    "os._exit(80)": lambda: os._exit(80),
    "segfault": lambda: ctypes.string_at(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@app.task(name="dies", retry=SOON)
def dies(death: str) -> str:
    with alone():
        if current_job.attempt == 1:
            DEATHS[death]()
        return "second attempt"


@app.task(name="poison", retry=Retry(10, backoff=0))
def poison() -> None:
    with alone():
        os.kill(os.getpid(), signal.SIGSEGV)


# What goes wrong in the ordinary way


@app.task(name="raises", retry=Retry(3, backoff=0.05, jitter=0))
def raises(error: str) -> None:
    with alone():
        kinds: dict[str, type[Exception]] = {"ValueError": ValueError, "KeyError": KeyError, "never": PermanentError}
        raise kinds[error](f"attempt {current_job.attempt}")


@app.task(name="class_task", retry=Retry(1))
@dataclass
class Order:
    order_id: int

    def handle(self) -> None:
        raise ValueError(f"order {self.order_id} is lost")

    def failed(self, error: JobFailed) -> None:
        note("hook", order=self.order_id, job=error.job_id, error=error.type)


@app.task(name="hooked_poison", retry=Retry(10, backoff=0))
def hooked_poison() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@hooked_poison.on_failure
def write_failure_row(job: Job, error: JobFailed) -> None:
    note("hook", job=job.id, cause=error.cause, state=job.state)


@app.task(name="cancellable", timeout=60)
def cancellable(*, swallow: bool = False) -> None:
    with alone():
        try:
            time.sleep(60)
        except Interrupt as interrupt:
            note("interrupted", job=current_job.id, by=type(interrupt).__name__, at=time.monotonic())
            if not swallow:
                raise
            _swallow()


@app.task(name="beats", timeout=120)
def beats() -> None:
    """Note again and again that the interpreter runs: it answers signals before it goes on."""
    with alone():
        while True:
            note("beat", job=current_job.id)
            time.sleep(0.02)


@app.task(name="cancels_itself")
def cancels_itself() -> None:
    with alone():
        app.job(current_job.id).cancel()
        raise ValueError("too early to be interrupted")


# The process a handler finds itself in


@app.task(name="alarms", timeout=30)
def alarms() -> str:
    """Use SIGALRM as a program of its own would, and leave it in disorder."""
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    while not rang:
        time.sleep(0.01)
    return "rang"


@app.task(name="pools", timeout=10)
def pools() -> list[int]:
    with alone(), multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, 3])


@app.task(name="terminates", timeout=10)
def terminates() -> int | None:
    """Start a process that sleeps, and have it end as SIGTERM ends any program."""
    with alone():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        process.terminate()
        process.join()
        return process.exitcode


@app.task(name="dispositions")
def dispositions() -> dict[str, str]:
    shown = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return dict(line.split(":\t") for line in shown.splitlines() if line.startswith("Sig"))


# What current_job offers


@app.task(name="facts", timeout=30)
def facts() -> dict[str, Any]:
    return {
        "id": current_job.id, "task": current_job.task, "queue": current_job.queue, "attempt": current_job.attempt,
        "max_attempts": current_job.max_attempts, "time_left": current_job.time_left(),
        "enqueued_at": current_job.enqueued_at.isoformat(),
    }  # fmt: skip


@app.task(name="writes", retry=Retry(1))
def writes(table: str, *, fail: bool = False) -> None:
    current_job.connection.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (1)").format(psycopg.sql.Identifier(table)))
    if fail:
        raise ValueError("after the write")


@app.task(name="reports_and_waits")
def reports_and_waits(path: str) -> None:
    with alone():
        current_job.progress(0.25, "a quarter")
        hold(path)


@app.task(name="reports_late")
def reports_late(path: str) -> None:
    with alone():
        hold(path)
        current_job.progress(0.75, "not mine to say")
        until_reported = time.monotonic() + 0.3
        while time.monotonic() < until_reported:
            time.sleep(0.05)


@app.task(name="logs", retry=Retry(1))
def logs(secret: str | None = None) -> None:
    """Log in every way there is."""
    logging.getLogger("shop").warning("by logging", extra={"shelf": 3})
    structlog.get_logger().warning("by structlog")
    if secret:
        logging.getLogger("shop").error("connecting to %s", secret)
        structlog.get_logger().error("connecting", dsn=secret, settings=json.dumps({"dsn": secret}))
        raise ConnectionError(f"cannot connect to {secret}")


@app.task(name="slow", slow_after=0.2, timeout=60)
def slow(path: str) -> None:
    with alone():
        hold(path)


@app.task(name="slow_gil", slow_after=0.2, timeout=None, retry=Retry(1))
def slow_gil() -> None:
    sum(itertools.repeat(1, 10**12))


@app.task(name="unkeepable")
def unkeepable() -> object:
    """Return what is no JSON."""
    return {1, 2}


# Every way for a run to be over

ENDS: dict[str, Callable[[], object]] = {
    "acknowledge": lambda: None,
    "retry": lambda: _raise(ValueError("again")),
    "fail": lambda: _raise(PermanentError("never again")),
    "snooze": lambda: current_job.snooze(0.1),
    "finish": lambda: _raise(CancelInterrupt()),
    "death": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def _raise(error: BaseException) -> None:
    raise error


@app.task(name="ends")
def ends(end: str, path: str) -> None:
    with alone():
        hold(path)
        if current_job.attempt == 1:
            ENDS[end]()


# What a transactional handler does once its effect is written; the second attempt returns at once.


def _caught() -> None:
    with suppress(psycopg.Error):
        current_job.connection.execute("SELECT 1/0")


def _terminated() -> None:
    pid = current_job.connection.info.backend_pid
    with psycopg.connect(os.environ["QWORKER_DSN"]) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def _raises() -> None:
    raise ValueError("after the effect")


async def _asynchronous() -> None:
    pass


EFFECTS: dict[str, Callable[[], object]] = {
    "returns": lambda: None,
    "raises": _raises,
    "returns a coroutine": _asynchronous,
    "timeout": lambda: time.sleep(60),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "catches an error": _caught,
    "commits": lambda: current_job.connection.commit(),  # noqa: PLW0108 - there is none yet
    "loses its session": _terminated,
    "breaks a rule": lambda: current_job.connection.execute("INSERT INTO effect VALUES (%s, 0, -1)", (current_job.id,)),
}


@app.task(name="takes_effect", transactional=True, timeout=1.0, retry=SOON)
def takes_effect(way: str) -> Any:
    with alone():
        current_job.connection.execute("INSERT INTO effect VALUES (%s, %s)", (current_job.id, current_job.attempt))
        effect = EFFECTS[way]() if current_job.attempt == 1 else None
        return effect if isinstance(effect, Coroutine) else "done"


@app.task(name="takes_effect_late", transactional=True, retry=SOON)
def takes_effect_late(path: str) -> None:
    with alone():
        current_job.connection.execute("INSERT INTO effect VALUES (%s, %s)", (current_job.id, current_job.attempt))
        hold(path)


@app.task(name="takes_many")
def takes_many() -> None:
    """Send one statement more often than the driver takes to prepare it."""
    for _ in range(10):
        current_job.connection.execute("SELECT %s::int", (1,))
        current_job.connection.commit()


# What handlers do to the signals of their process, and leave so

ORDERS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM)


def _asyncio() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for signum in ORDERS:
            loop.add_signal_handler(signum, loop.stop)
            loop.remove_signal_handler(signum)

    asyncio.run(main())


def _answer(answer: Any) -> None:
    for signum in ORDERS:
        signal.signal(signum, answer)


MEDDLING: dict[str, Callable[[], object]] = {
    "asyncio": _asyncio,
    "ignored": lambda: _answer(signal.SIG_IGN),
    "default": lambda: _answer(signal.SIG_DFL),
    "foreign": lambda: _answer(lambda *_: None),
    "blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "wakeup": lambda: signal.set_wakeup_fd(-1),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 300),
    "pipe": lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    "children": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
}


@app.task(name="meddles", retry=Retry(1))
def meddles(way: str) -> None:
    with alone():
        MEDDLING[way]()
        time.sleep(0.002)


@app.task(name="meddles_and_waits", retry=Retry(1))
def meddles_and_waits(way: str, path: str) -> None:
    with alone():
        MEDDLING[way]()
        note("meddled", job=current_job.id)
        hold(path)


@app.task(name="breaks_a_pipe", retry=Retry(1))
def breaks_a_pipe() -> str:
    read, write = os.pipe()
    os.close(read)
    try:
        os.write(write, b"x")
    except BrokenPipeError:
        return "told"
    finally:
        os.close(write)
    return "not told"


@app.task(name="exit_code", retry=Retry(1))
def exit_code() -> int:
    return subprocess.run(["false"], check=False).returncode


@app.task(name="commits_itself", transactional=True, retry=Retry(3, backoff=0.05, jitter=0))
def commits_itself(way: str) -> None:
    with alone():
        current_job.connection.execute("INSERT INTO effect VALUES (%s, %s)", (current_job.id, current_job.attempt))
        psycopg.Cursor(current_job.connection).execute("COMMIT")
        if way == "raises":
            raise ValueError(way)


@app.task(name="takes_effect_as_another", transactional=True)
def takes_effect_as_another() -> None:
    with alone():
        current_job.connection.execute("INSERT INTO effect VALUES (%s, %s)", (current_job.id, current_job.attempt))
        current_job.connection.execute("SET LOCAL ROLE pg_monitor")


@app.task(name="works_elsewhere", transactional=True)
def works_elsewhere() -> None:
    with psycopg.connect(os.environ["QWORKER_DSN"]) as connection:
        connection.execute("SELECT 1")


async def _unrun() -> None:
    note("ran", job=current_job.id)


def _unrun_generator() -> Iterator[int]:
    note("ran", job=current_job.id)
    yield 1


async def _unrun_asynchronous_generator() -> AsyncIterator[int]:
    note("ran", job=current_job.id)
    yield 1


class _Awaitable:
    def __await__(self) -> Iterator[None]:
        return iter(())


UNDONE: dict[str, Callable[[], Any]] = {
    "coroutine": _unrun,
    "generator": _unrun_generator,
    "async_generator": _unrun_asynchronous_generator,
    "_Awaitable": _Awaitable,
    "map": lambda: map(note, ["ran"]),
    "filter": lambda: filter(note, ["ran"]),
    "coroutine in a list": lambda: [_unrun(), _unrun()],
    "coroutine in a tuple": lambda: (None, _unrun()),
    "generator in a dict": lambda: {"sent": _unrun_generator(), "read": _unrun()},
}


@app.task(name="undone", retry=Retry(2, backoff=0.05, jitter=0))
def undone(kind: str) -> Any:
    return UNDONE[kind]()


@undone.on_failure
def undone_hook(job: Job, error: JobFailed) -> Any:
    return UNDONE[job.args["kind"]]()


@app.task(name="time_left")
def time_left() -> str:
    return str(current_job.time_left())


@app.task(name="standard_descriptors")
def standard_descriptors() -> list[str]:
    sys.stdout.write("into nowhere\n")
    sys.stdout.flush()
    return [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)]


@app.task(name="orders_itself", retry=Retry(1))
def orders_itself(number: int) -> str:
    """Send a signal to its own worker, as the supervisor does in a shutdown."""
    with alone():
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        return "done"
