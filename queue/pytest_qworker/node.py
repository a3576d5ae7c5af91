"""A node in a process of its own, for tests from end to end: started once, and left running while it is idle."""

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pytest_qworker import django_project
from pytest_qworker.application import name_of
from qworker import App

#: Time allowed for the start and for the stop of the node (seconds).
START_TIMEOUT, STOP_TIMEOUT = 30.0, 20.0
#: Interval between two looks at its log (seconds).
_POLL = 0.01
#: A node is stopped if a job is left that it would start within this time.
_SOON = timedelta(seconds=10)


class Node:
    """Runs `qworker` in the current directory, with one worker."""

    def __init__(self, name: str, app: App, dsn: str) -> None:
        self._app = name_of(name)
        self._environment = {"QWORKER_DSN": dsn}
        if django_project.is_project(app):
            self._environment[django_project.DATABASES] = django_project.databases()
        elif "QWORKER_QUEUES" not in os.environ:
            queues = {task.queue for task in app.tasks.values()}
            self._environment["QWORKER_QUEUES"] = ",".join(["default", *sorted(queues - {"default"})])
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-node-")
        self._process: subprocess.Popen[bytes] | None = None
        #: The log of the node, as JSON lines.
        self.log = Path(self._folder.name) / "log"

    @property
    def pid(self) -> int:
        """The process id of the supervisor; 0 if the node does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start the node unless it runs."""
        if self.pid:
            return
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "QWORKER_APP": self._app,
            "QWORKER_LOG_FORMAT": "json", "QWORKER_PROCESSES": "1", "QWORKER_POLL_INTERVAL": "0.1", **self._environment,
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest_qworker.serve"]
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        deadline = time.monotonic() + START_TIMEOUT
        while '"event": "supervisor.ready"' not in self.log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text()
                self.stop()
                raise RuntimeError(f"the node did not start:\n{text}")
            time.sleep(_POLL)

    def stop(self) -> None:
        """Stop the node if it runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def end_test(self, app: App) -> None:
        """Stop the node if a test has left jobs to it, which would run in the next test."""
        soon = datetime.now(UTC) + _SOON
        later = (job.run_at is not None and job.run_at > soon for job in app.jobs(state="scheduled"))
        if any(True for state in ("running", "available") for _ in app.jobs(state=state, limit=1)) or not all(later):
            self.stop()


class Nodes:
    """The nodes of a session: one for each database."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], Node] = {}

    def running(self, name: str, app: App, dsn: str) -> Node:
        """Return the node for a database, started."""
        if (name, dsn) not in self._nodes:
            self._nodes[name, dsn] = Node(name, app, dsn)
        node = self._nodes[name, dsn]
        node.start()
        return node

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self._nodes.values():
            node.stop()
        self._nodes.clear()
