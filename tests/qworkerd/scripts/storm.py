"""Run handlers through the gate under a storm of SIGALRM from another process; print what became of them as JSON.

Arguments: calls and alarms to reach; deadline in seconds from the start of each call; seconds after which it ends with
fewer: alarms that come while the process waits for a processor are one to it, so a loaded machine takes far longer. A
run without coverage: tracers call Python between the handler's return and the closing of the gate. The storm leaves
gaps of random length: without them the process does nothing but answer signals, and on a slow machine no handler ever
runs.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from qworker.errors import TimeoutInterrupt
from qworkerd.worker.interrupts import InterruptGate

#: Between two alarms, at most, in seconds. An alarm is answered in about three microseconds.
GAP = 40e-6
calls, deadline, limit = int(sys.argv[1]), float(sys.argv[2]), time.monotonic() + float(sys.argv[3])
gate = InterruptGate(repeat=0.5)
outcomes = {"calls": 0, "ok": 0, "timeout": 0, "escaped": 0, "early": 0, "alarms": 0}


def alarm(signum: int, frame: FrameType | None) -> None:
    outcomes["alarms"] += 1
    gate.fire(signum, frame)


signal.signal(signal.SIGALRM, alarm)


def plain() -> int:
    return 1


def tidy() -> int:
    try:
        return 1
    finally:
        len("x")


def generator() -> int:
    return sum(i for i in (1, 2))


handlers: list[Callable[..., object]] = [plain, tidy, generator, lambda: 1, int, str]
parent = os.getpid()
pid = os.fork()
if pid == 0:
    try:
        while True:  # ends with its parent: the pid of a zombie's child is another's
            if os.getppid() != parent:
                os._exit(0)
            for _ in range(1000):
                gap = time.perf_counter() + random.uniform(0, GAP)
                while time.perf_counter() < gap:
                    pass
                os.kill(parent, signal.SIGALRM)
    except ProcessLookupError:
        os._exit(0)

now = time.monotonic()
try:
    while min(outcomes["calls"], outcomes["alarms"]) < calls and now < limit:
        try:
            while min(outcomes["calls"], outcomes["alarms"]) < calls and now < limit:
                now = time.monotonic()
                got = 0
                try:
                    gate.call(handlers[outcomes["calls"] % len(handlers)], (), {}, now + deadline)
                    got = 1
                except TimeoutInterrupt:
                    got = 2
                if got == 1:
                    outcomes["ok"] += 1
                else:
                    outcomes["timeout"] += 1
                    outcomes["early"] += time.monotonic() < now + deadline
                outcomes["calls"] += 1
        except TimeoutInterrupt:
            outcomes["escaped"] += 1
            outcomes["calls"] += 1
finally:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
sys.stdout.write(json.dumps(outcomes) + "\n")
