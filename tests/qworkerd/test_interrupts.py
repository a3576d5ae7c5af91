"""The interrupt gate: exactly one outcome for each call, and no interrupt outside of the handler."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from qworker.errors import CancelInterrupt, TimeoutInterrupt
from qworkerd.worker.interrupts import InterruptGate

STORM = Path(__file__).parent / "scripts" / "storm.py"


@pytest.fixture
def acknowledger() -> Iterator[None]:
    """Have a thread that looks round every 50 ms, as in a worker: a signal that CPython has overlooked is seen then."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            pass

    thread = threading.Thread(target=look)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def gate() -> Iterator[InterruptGate]:
    gate = InterruptGate(repeat=0.2)
    before = signal.signal(signal.SIGALRM, gate.fire)
    yield gate
    gate.disarm()
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("deadline", "timeouts"), [("0.00002", True), ("30", False)])
def test_a_storm_of_alarms_never_escapes(deadline: str, timeouts: bool) -> None:
    # In a process without coverage: tracers call Python between the handler's return and the closing of the gate.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run(
        [sys.executable, STORM, "100000", deadline, "20"], env=environment, capture_output=True, text=True, check=True
    )
    result = json.loads(ran.stdout)
    assert result["escaped"] == 0, result
    assert result["early"] == 0, result
    assert result["ok"] + result["timeout"] == result["calls"] >= 500
    assert result["alarms"] >= 500  # 100,000 on a machine that does nothing else
    assert (result["timeout"] > 0) is timeouts
    assert result["ok"] > 0


@pytest.mark.usefixtures("acknowledger")
def test_a_handler_that_ends_at_its_deadline_has_one_outcome(gate: InterruptGate) -> None:
    outcomes = {"ok": 0, "timeout": 0}
    for number in range(10_000):
        deadline = time.monotonic() + 0.0005
        end = deadline + random.uniform(-0.0004, 0.0004) if number % 50 else deadline + 0.01

        def handler(end: float = end) -> None:
            while time.monotonic() < end:
                pass

        try:
            gate.call(handler, (), {}, deadline)
            outcomes["ok"] += 1
            assert time.monotonic() < end + 5
        except TimeoutInterrupt:
            outcomes["timeout"] += 1
            assert time.monotonic() >= deadline
    assert sum(outcomes.values()) == 10_000
    assert min(outcomes.values()) > 100  # both really happened


def test_an_alarm_without_a_handler_does_nothing(gate: InterruptGate) -> None:
    gate.fire()
    gate.interrupt(CancelInterrupt)
    assert gate.call(lambda: 7, (), {}, inf) == 7


def test_an_alarm_meant_for_an_earlier_job_does_not_hit_the_next(gate: InterruptGate) -> None:
    gate.call(lambda: None, (), {}, time.monotonic() + 0.2)
    started = time.monotonic()
    with pytest.raises(TimeoutInterrupt):
        gate.call(time.sleep, (10,), {}, started + 0.3)
    assert 0.29 <= time.monotonic() - started < 5


def test_a_swallowed_interrupt_comes_again(gate: InterruptGate) -> None:
    caught: list[float] = []

    def handler() -> None:
        while len(caught) < 3:
            try:
                time.sleep(10)
            except TimeoutInterrupt:
                caught.append(time.monotonic())

    deadline = time.monotonic() + 0.1
    gate.call(handler, (), {}, deadline)
    assert len(caught) == 3
    assert caught[2] - deadline >= 2 * 0.19


@pytest.mark.parametrize("left", [0, 60])
def test_a_handler_that_used_the_timer_itself_does_not_leave_the_gate_without_its_timer(
    gate: InterruptGate, left: float
) -> None:
    gate.call(signal.setitimer, (signal.ITIMER_REAL, left), {}, time.monotonic() + 10)
    assert gate.reclaim_timer()
    with pytest.raises(TimeoutInterrupt):
        gate.call(time.sleep, (10,), {}, time.monotonic() + 0.1)


def test_a_timer_that_nobody_used_is_left_alone(gate: InterruptGate) -> None:
    assert not gate.reclaim_timer()
    gate.call(lambda: None, (), {}, time.monotonic() + 10)
    assert not gate.reclaim_timer()
    gate.call(lambda: None, (), {}, time.monotonic() + 0.01)
    time.sleep(0.02)
    assert not gate.reclaim_timer()


def test_cancelling_interrupts_the_handler(gate: InterruptGate) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: gate.interrupt(CancelInterrupt))
    try:
        with pytest.raises(CancelInterrupt):
            gate.call(os.kill, (os.getpid(), signal.SIGUSR1), {}, inf)
    finally:
        signal.signal(signal.SIGUSR1, before)
