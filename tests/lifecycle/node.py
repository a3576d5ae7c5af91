"""A real `qworker` command under test: started, watched, signalled, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.waiting import until


class Node:
    """One supervisor with its children; `events` are its log lines."""

    def __init__(self, folder: Path, dsn: str, *options: str, **environment: str) -> None:
        self.folder = folder
        self.log = folder / f"log-{time.monotonic_ns()}"
        self.dsn = dsn
        env = {
            **os.environ,
            "QWORKER_DSN": dsn,
            "QWORKER_TEST_DIR": str(folder),
            "QWORKER_APP": "tests.lifecycle.application:app",
            "QWORKER_LOG_LEVEL": "debug",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        env.pop("COVERAGE_PROCESS_START", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qworkerd.cli.main", *options],
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

    def await_event(self, name: str, timeout: float = 15.0, count: int = 1, **facts: Any) -> dict[str, Any]:
        """Wait for an event; return the newest."""
        until(lambda: len(self.events(name, **facts)) >= count or self.process.poll() is not None, timeout,
              what=lambda: f"event {name} {facts} in:\n{self.tail()}")  # fmt: skip
        events = self.events(name, **facts)
        assert len(events) >= count, f"{name} {facts} did not come before the end:\n{self.tail()}"
        return events[-1]

    def await_ready(self) -> "Node":
        """Wait until the node works."""
        self.await_event("supervisor.ready")
        return self

    def tail(self, lines: int = 60) -> str:
        """Return the end of the log, for messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def children(self, role: str) -> list[int]:
        """Return the pids of the living children of a role: "worker", "scheduler"."""
        found = []
        for event in self.events("child.spawned"):
            if event["child"].startswith(role) and alive(event["child_pid"]):
                found.append(event["child_pid"])
        return found

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
        for event in self.events("child.spawned"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(event["child_pid"], signal.SIGKILL)
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False
