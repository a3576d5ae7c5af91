"""A real `qworker` command under test: started, watched, signalled, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.waiting import until


class Node:
    """One supervisor with its children; `events` are its log lines.

    `through` is a command that execs its arguments (nohup, env), and so changes what the supervisor inherits.
    """

    def __init__(self, folder: Path, dsn: str, *options: str, through: Sequence[str] = (), **environment: str) -> None:
        self.folder = folder
        self.log = folder / f"log-{time.monotonic_ns()}"
        self.dsn = dsn
        env = {
            **os.environ,
            "QWORKER_DSN": dsn,
            "QWORKER_TEST_DIR": str(folder),
            "QWORKER_APP": "tests.lifecycle.handlers:app",
            "QWORKER_LOG_LEVEL": "debug",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        env.pop("COVERAGE_PROCESS_START", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "qworkerd", *options],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def events(self, name: str | None = None, **facts: Any) -> list[dict[str, Any]]:
        """Return the log lines so far that are events of this name with these facts."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                event = json.loads(line)
                if isinstance(event, dict) and name in (None, event.get("event")) and facts.items() <= event.items():
                    found.append(event)
        return found

    def await_event(self, name: str, timeout: float = 20.0, count: int = 1, **facts: Any) -> dict[str, Any]:
        """Wait for an event; return the newest."""
        until(lambda: len(self.events(name, **facts)) >= count or self.process.poll() is not None, timeout,
              what=lambda: f"event {name} {facts} in:\n{self.tail()}")  # fmt: skip
        events = self.events(name, **facts)
        assert len(events) >= count, f"{name} {facts} did not come before the end:\n{self.tail()}"
        return events[-1]

    def await_ready(self) -> "Node":
        """Wait until the node works."""
        # A dozen nodes that start at once take long on a slow machine.
        self.await_event("supervisor.ready", timeout=90.0)
        return self

    def tail(self, lines: int = 60) -> str:
        """Return the end of the log, for messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def children(self, role: str) -> list[int]:
        """Return the pids of the living children of a role: "worker", "scheduler"; also when their parent is dead.

        They are named so, and each leads a process group of the node's session; what jobs have started does not.
        """
        return [pid for pid in sorted(self.members()) if leads(pid) and role == _role(pid)]

    def spawned(self, child: str) -> int:
        """Return the newest pid of a seat ("worker 1", "scheduler"), be it that it hangs before it is named."""
        return int(self.events("child.spawned", child=child)[-1]["child_pid"])

    def members(self) -> list[int]:
        """Return the pids of every living process of the node: supervisor, children, and what their jobs have started.

        They are one session, whoever of them has died; only what calls setsid(2) escapes.
        """
        pids = (int(proc.name) for proc in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if session(pid) == self.pid]

    def signal(self, signum: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(signum)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the supervisor's end; return its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the supervisor is still running after {timeout} s:\n{self.tail()}") from None

    def stop(self, timeout: float = 20.0) -> int:
        """Stop it in good order."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def destroy(self) -> None:
        """Kill everything that is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


def _role(pid: int) -> str | None:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    _, qworker, position = name.rpartition("qworker-")
    return {"sched": "scheduler", "metrics": "exporter"}.get(position, "worker") if qworker else None


def leads(pid: int) -> bool:
    """Tell whether a process leads its group."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    return session(pid) is not None


def session(pid: int) -> int | None:
    """Return the session of a living process (proc(5) stat); None when it is gone or a zombie."""
    try:
        state, _, _, number, *_ = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in (b"Z", b"X") else int(number)
