"""The application under test with workers that are killed while they log a failed attempt."""

import os
import signal
from collections.abc import Callable
from typing import Any

from qworkerd.log import jobs
from tests.lifecycle.handlers import app

__all__ = ["app"]


def killed(log: Callable[..., None]) -> Callable[..., None]:
    """Return what kills the worker before or after it logs the first attempt of a job."""

    def log_or_die(*args: Any, **facts: Any) -> None:
        before = os.environ["QWORKER_TEST_WAY"] == "before"
        if not before:
            log(*args, **facts)
        if args[1].attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if before:
            log(*args, **facts)

    return log_or_die


jobs.retried = killed(jobs.retried)
jobs.failed = killed(jobs.failed)
jobs.snoozed = killed(jobs.snoozed)
