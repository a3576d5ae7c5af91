"""The application under test with middleware that does what it must not, and hooks of its worker processes."""

import os
import time
from collections.abc import Callable
from typing import Any

from qworker import Retry, current_job
from qworker.context import RunningJob
from tests.lifecycle.application import note
from tests.lifecycle.handlers import app

__all__ = ["app"]


@app.middleware
def outer(job: RunningJob, call_next: Callable[[], Any]) -> Any:
    result = call_next()
    return f"outer({result})" if job.task == "layered" else result


@app.middleware
def misbehaves(job: RunningJob, call_next: Callable[[], Any]) -> Any:
    if job.task != "layered":
        return call_next()
    way = job.queue
    if way == "before" and job.attempt == 1:
        raise ValueError("before")
    if way == "instead":
        return "instead"
    try:
        result = call_next()
    except BaseException as error:
        if isinstance(error, Exception) and way != "caught":
            raise
        return "swallowed"
    if way == "after" and job.attempt == 1:
        raise ValueError("after")
    return call_next() if way == "twice" else result


@app.task(name="layered", retry=Retry(2, backoff=0.05, jitter=0), timeout=60)
def layered() -> str:
    note("ran", job=current_job.id)
    count = len(current_job.queue)
    if current_job.queue in ("raises", "caught"):
        raise LookupError("by the handler")
    if current_job.queue == "snoozes" and time.time() - current_job.enqueued_at.timestamp() < 1.0:
        current_job.snooze(1.0)
    if current_job.queue in ("timeout", "shutdown", "cancelled"):
        time.sleep(60)
    return f"handler {count}"


@app.on_worker_start
def starts() -> None:
    note("started", pid=os.getpid())
    if "QWORKER_TEST_BROKEN_START" in os.environ:
        raise SystemExit("not today")
    if "QWORKER_TEST_HANGING_START" in os.environ:
        time.sleep(600)


@app.on_worker_stop
def last() -> None:
    note("stopped", pid=os.getpid())
    if "QWORKER_TEST_HANGING_STOP" in os.environ:
        time.sleep(600)


@app.on_worker_stop
def breaks() -> None:
    raise SystemExit("a broken hook")
