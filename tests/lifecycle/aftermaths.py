"""More of the application under test: handlers that have ended when what they have left behind ends their worker."""

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from qworker import Retry, current_job
from tests.lifecycle.application import alone, app
from tests.lifecycle.handlers import hold

__all__ = ["OUTCOMES", "WAYS", "app"]

#: What a handler ends with.
OUTCOMES = ("result", "None", "error")


def _overflow() -> None:
    """Run over the end of the thread's stack, in C code."""
    sys.setrecursionlimit(2**30)

    def fall(_: object) -> object:
        return list(map(fall, [0]))

    fall(0)


def _use_up_the_processor() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
    while True:
        pass


#: What a thread does once the handler is over.
WAYS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(80)": lambda: os._exit(80),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "stack overflow": _overflow,
    "processor time": _use_up_the_processor,
    "descriptors closed": lambda: os.closerange(3, 1024),
    "json replaced": lambda: vars(json).update(dumps=None),
}


def _runs(main: int) -> bool:
    """Tell whether the main thread is in a handler, or on its way out of it."""
    frame = sys._current_frames().get(main)
    while frame is not None:
        if frame.f_code.co_filename.endswith("runner.py"):
            return True
        frame = frame.f_back
    return False


def _afterwards(way: str) -> None:
    main = threading.main_thread().ident or 0
    while _runs(main):
        time.sleep(0.0002)
    WAYS[way]()


@app.task(name="breaks_afterwards", retry=Retry(2, backoff=0.05, jitter=0))
def breaks_afterwards(way: str, outcome: str, path: str) -> Any:
    with alone():
        if current_job.attempt > 1:
            return {"attempt": current_job.attempt}
        hold(path)
    threading.stack_size(256 * 1024)
    threading.Thread(target=_afterwards, args=(way,), daemon=True).start()
    if outcome == "error":
        raise ValueError("of its own")
    return {"attempt": 1} if outcome == "result" else None
