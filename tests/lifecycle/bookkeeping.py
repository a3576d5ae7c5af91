"""The application under test with workers that do not survive what they do for some jobs before the handler runs."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from qworkerd.config.policy import Policies
from qworkerd.worker import runner
from qworkerd.worker.runner import Runner
from tests.lifecycle.handlers import app

__all__ = ["app"]

runner.BOOKKEEPING_TIMEOUT = 0.5
find, store = Policies.find, Runner._store


def end() -> None:
    """Die or stall, but in the scheduler, which looks for the policy of the dead worker's job."""
    if "sched" in Path("/proc/self/comm").read_text():
        return
    if os.environ["QWORKER_TEST_WAY"] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


def find_or_end(self: Policies, task: Any, overrides: str | None) -> Any:
    if overrides and "77" in overrides:
        end()
    return find(self, task, overrides)


def store_or_end(self: Runner, claim: Any, index: int, outcome: Any) -> None:
    if getattr(outcome, "unknown_task", False):
        end()
    store(self, claim, index, outcome)


Policies.find = find_or_end  # type: ignore[method-assign]
Runner._store = store_or_end  # type: ignore[method-assign]
