"""Processes that tests started and did not end, found by a mark that every process inherits."""

import os
import time
from collections.abc import Iterator
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
