"""Attempts of jobs that no worker runs."""

from math import inf
from typing import Any

from qworker.context import RunningJob


def attempt(number: int = 1) -> RunningJob:
    """Return an attempt that has neither a connection nor a place for its progress."""
    return RunningJob.start(
        job=7, task="send", queue="default", attempt=number, max_attempts=3, enqueued_at=0.0, started=0.0,
        deadline_at=inf, connect=_nothing, report=_nothing,
    )  # fmt: skip


def _nothing(*_: Any) -> Any:
    raise AssertionError
