"""The clock of start times and due times: the database's, unless a test has moved it (`qworker.testing.travel`)."""

from time import time

#: Seconds by which a test has moved the clock.
_offset = 0.0


def at() -> float | None:
    """Return the time that replaces the database's clock in a statement, in seconds since 1970; None: it does not."""
    return time() + _offset if _offset else None


def offset() -> float:
    """Return the seconds by which the clock is moved."""
    return _offset


def move(seconds: float) -> None:
    """Move the clock by this many seconds, counted from the database's."""
    global _offset  # noqa: PLW0603 - one clock for the process
    _offset = seconds
