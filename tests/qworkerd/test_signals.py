"""The supervisor's signals: taken one at a time, also by a process that was frozen meanwhile."""

import os
import signal
import time
from ast import literal_eval
from collections.abc import Callable
from typing import cast

from qworkerd.process import signals
from tests.forks import apart
from tests.waiting import until


def taken(watched: frozenset[signal.Signals], timeout: float) -> tuple[int, int] | None:
    info = signals.wait_for_signal(watched, timeout)
    return None if info is None else (info.si_signo, info.si_pid)


def test_pending_signals_are_taken_with_their_senders_and_coalesce() -> None:
    def take() -> list[tuple[int, int] | None]:
        watched = signals.block()
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        return [(found[0], found[1] - os.getpid()) if (found := taken(watched, 0.01)) else None for _ in range(3)]

    assert apart(take) == [(signal.SIGHUP, 0), (signal.SIGTERM, 0), None]


def test_without_a_signal_the_wait_is_as_long_as_asked_for() -> None:
    def span(watched: frozenset[signal.Signals], timeout: float) -> float:
        begun = time.monotonic()
        assert taken(watched, timeout) is None
        return time.monotonic() - begun

    def shortest() -> list[float]:
        watched = signals.block()
        return [min(span(watched, timeout) for _ in range(3)) for timeout in (0.1, 0.0, -1.0)]

    long, short, negative = apart(shortest)
    assert 0.1 <= long < 0.5
    assert short < 0.1
    assert negative < 0.1


def test_a_process_that_was_frozen_when_its_time_was_over_has_taken_nothing() -> None:
    def freeze() -> list[tuple[int, int] | None]:
        reading, writing = os.pipe()
        waiting, going = os.pipe()
        pid = os.fork()
        if pid == 0:
            watched = signals.block()
            found = []
            for _ in range(5):
                os.write(writing, b"w")
                found.append(taken(watched, 0.05))
                os.read(waiting, 1)
            os.write(writing, repr(found).encode())
            os._exit(0)
        for _ in range(5):
            os.read(reading, 1)
            os.kill(pid, signal.SIGSTOP)
            until(state(pid, "T"))
            until(passed(time.monotonic() + 0.05))
            os.kill(pid, signal.SIGCONT)
            os.write(going, b"g")
        message = os.read(reading, 1000).decode()
        os.waitpid(pid, 0)
        return cast("list[tuple[int, int] | None]", literal_eval(message))

    assert apart(freeze) == [None] * 5


def passed(moment: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > moment


def state(pid: int, wanted: str) -> Callable[[], bool]:
    def look() -> bool:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == wanted

    return look
