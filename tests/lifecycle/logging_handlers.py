"""Handlers that log."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import structlog

from qworker import App, PermanentError, Retry, current_job

app = App()
log, old = structlog.get_logger(), logging.getLogger("shop")


@app.task(retry=Retry(2, backoff=0.01, jitter=0), timeout=30)
def fails(lines: int = 3) -> None:
    log.info("begun", order=17, password="hunter2", text="\x1b[2J\0\u202e")
    for number in range(lines):
        old.warning("line %d", number, extra={"basket": number})
    empty: dict[str, int] = {}
    try:
        empty["k"]
    except KeyError:
        old.exception("caught")
    raise ValueError("no")


@app.task(timeout=30)
def succeeds() -> None:
    log.info("only the log has this")


@app.task(timeout=30)
def floods() -> None:
    for number in range(1000):
        log.info("x" * 1000, number=number)
    raise PermanentError("enough")


@app.task(timeout=30)
def in_a_thread() -> None:
    thread = threading.Thread(target=lambda: old.error("without the context of the job"))
    thread.start()
    thread.join()
    log.info("own")
    raise PermanentError("no")


@app.task(timeout=30, retry=False)
def dies() -> None:
    log.info("last words")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(timeout=30)
def asks_for_time(tried: str) -> None:
    log.info("not yet")
    if not Path(tried).exists():
        Path(tried).touch()
        current_job.snooze(0.05)


@app.task(timeout=30, transactional=True)
def commits() -> None:
    current_job.connection.execute("SELECT 1")
    log.info("committed")


@app.task(timeout=60, retry=Retry(2, backoff=0.01, jitter=0))
def steps(folder: str, last: int, fail: bool = False) -> None:
    """Log a line for each file that appears; the first attempt fails if asked to."""
    for number in range(last + 1):
        while not Path(folder, f"{current_job.attempt}.{number}").exists():
            time.sleep(0.01)
        log.info("step", number=number)
    if fail and current_job.attempt == 1:
        raise ValueError("again")
