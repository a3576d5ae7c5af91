"""Waiting for conditions, never for time to pass."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 20.0, what: str | Callable[[], str] = "") -> T:
    """Return the condition's first true value, looked at every 10 ms; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {(what() if callable(what) else what) or condition}")
        time.sleep(0.01)
    return value
