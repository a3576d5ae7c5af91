"""Processes that tests started and did not end, found by a mark that every process inherits.

Run as a script, this is the watcher that ends them when the tests themselves were killed.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "TESTS_OF_SESSION"


def left(mark: str) -> Iterator[tuple[int, str]]:
    """Yield process id and command line of each living process that carries the mark."""
    for proc in Path("/proc").glob("[0-9]*"):
        if int(proc.name) == os.getpid():
            continue
        try:
            running = (proc / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = f"{MARK}={mark}".encode() in (proc / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if running and marked:
            yield int(proc.name), command


def wait(mark: str, seconds: float) -> dict[int, str]:
    """Return what is left after at most so many seconds: what was killed needs a moment to go."""
    deadline = time.monotonic() + seconds
    while (found := dict(left(mark))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def kill(mark: str) -> dict[int, str]:
    """Kill what is left, stopped processes as well, until nothing is; return what it was."""
    killed: dict[int, str] = {}
    while found := dict(left(mark)):
        killed |= found
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait(mark, seconds=1.0)
    return killed


@contextmanager
def watched(mark: str) -> Iterator[None]:
    """Have what carries the mark killed if this process dies inside, whatever of."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    # A session of its own, or a signal to the terminal's or the starter's group would end it, too.
    watcher = subprocess.Popen(
        [sys.executable, __file__, mark, str(os.getpid())], env=environment, start_new_session=True
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def watch(mark: str, starter: int) -> None:
    """Wait for the starter's death; then leave PostgreSQL the time for its own good end, and kill the rest."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(starter)
        if os.getppid() == starter:
            select.select([pidfd], [], [])
    wait(mark, seconds=3.0)
    kill(mark)


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]))
