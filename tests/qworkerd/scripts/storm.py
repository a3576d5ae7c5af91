"""Run handlers through the gate under a storm of SIGALRM from another process; print what became of them as JSON.

Arguments: calls, deadline in seconds from the start of each call. A run without coverage: tracers call Python between
the handler's return and the closing of the gate.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable

from qworker.errors import JobTimeout
from qworkerd.worker.gate import Gate

calls, deadline = int(sys.argv[1]), float(sys.argv[2])
gate = Gate(repeat=0.5)
signal.signal(signal.SIGALRM, gate.fire)


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
ready, go = os.pipe()
parent = os.getpid()
pid = os.fork()
if pid == 0:
    os.close(go)
    try:
        while True:  # ends with its parent: the pid of a zombie's child is another's
            if os.getppid() != parent:
                os._exit(0)
            for _ in range(1000):
                os.kill(parent, signal.SIGALRM)
    except ProcessLookupError:
        os._exit(0)

outcomes = {"ok": 0, "timeout": 0, "escaped": 0, "early": 0}
done = 0
try:
    while done < calls:
        try:
            while done < calls:
                now = time.monotonic()
                got = 0
                try:
                    gate.call(handlers[done % len(handlers)], (), {}, now + deadline)
                    got = 1
                except JobTimeout:
                    got = 2
                if got == 1:
                    outcomes["ok"] += 1
                else:
                    outcomes["timeout"] += 1
                    outcomes["early"] += time.monotonic() < now + deadline
                done += 1
        except JobTimeout:
            outcomes["escaped"] += 1
            done += 1
finally:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
outcomes["calls"] = calls
sys.stdout.write(json.dumps(outcomes) + "\n")
