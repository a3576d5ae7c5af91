"""Start nodes, stop each at a random early moment: all must end with 0 and leave nothing. Arguments: number, seed."""

import gc
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.run import serve
from tests.lifecycle.hostile import app
from tests.lifecycle.node import session

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: How many start at the same time.
TOGETHER = 5


def start() -> int:
    """Start a node in a session of its own; return its pid."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = 70
        try:
            code = serve(app, Settings(processes=1, log_format="json"))
        finally:
            os._exit(code)
    return pid


def end(pid: int) -> int | None:
    """Return the node's exit code; None when it does not end within ten seconds."""
    watch = os.pidfd_open(pid)
    try:
        if not select.select([watch], [], [], 10)[0]:
            return None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(watch)


def members(number: int) -> list[int]:
    """Return the living processes of a session."""
    return [int(proc.name) for proc in Path("/proc").glob("[0-9]*") if session(int(proc.name)) == number]


def stop(pid: int) -> str:
    """Wait for the end of a node that was told to stop; return what is wrong with it."""
    code, left = end(pid), members(pid)
    for straggler in left:
        os.kill(straggler, signal.SIGKILL)
    if code is None:
        os.waitpid(pid, 0)
    return "" if code == 0 and not left else f"exit code {code}, left behind: {left}"


def main(count: int, seed: int) -> list[str]:
    log.configure("json", "info")
    gc.disable()
    luck, bad, starter = random.Random(seed), [], os.getppid()
    # What comes before the supervisor blocks its signals ends the process as it ends any program; begin after that.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for _ in range(count // TOGETHER):
        if os.getppid() != starter:
            return ["whoever started this is gone"]
        delays = sorted(luck.uniform(0, 0.1) for _ in range(TOGETHER))
        begun, pids = time.monotonic(), [start() for _ in delays]
        for pid, delay in zip(pids, delays, strict=True):
            time.sleep(max(0.0, begun + delay - time.monotonic()))
            os.kill(pid, luck.choice(SIGNALS))
        for pid, delay in zip(pids, delays, strict=True):
            if wrong := stop(pid):
                bad.append(f"stopped after {delay * 1000:.1f} ms: {wrong}")
    return bad


if __name__ == "__main__":
    sys.exit("\n".join(main(*map(int, sys.argv[1:]))) or 0)
