"""More of the application under test: a handler whose process leaves its group and hears no signal."""

import os
import signal
import time

from qworker import Retry, current_job
from tests.lifecycle.application import alone, app

__all__ = ["app"]


def _leave() -> None:
    if current_job.attempt == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.setpgid(0, os.getpgid(os.getppid()))
        time.sleep(120)


@app.task(name="escapes", retry=Retry(2, backoff=0.05, jitter=0), timeout=0.5)
def escapes() -> None:
    with alone():
        _leave()


@app.task(name="escapes_for_good", retry=Retry(1), timeout=None)
def escapes_for_good() -> None:
    with alone():
        _leave()
