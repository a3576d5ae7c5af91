"""The demo's node: a `qworker` process that is started, watched and stopped, and that does not outlive the demo."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Self

from qworker.errors import QworkerError
from qworkerd.demo.events import Events
from qworkerd.process import spawn

#: Interval at which the log is read (seconds).
READ_INTERVAL = 0.02

APP = "qworkerd.demo.jobs:app"
QUEUES = "default,files"

#: Variables that would change the node's settings or notify a service manager.
FOREIGN = ("QWORKER_", "PG", "DATABASE_URL", "MAX_CONCURRENT_JOBS", "JOB_TIMEOUT", "NOTIFY_SOCKET", "WATCHDOG_")


class NodeEnded(QworkerError):
    """The node ended before the demo stopped it."""


class Node:
    """A node with the demo's tasks; it runs in `folder`, so that no other project's settings apply."""

    def __init__(self, processes: int, dsn: str, folder: Path, log: Path) -> None:
        #: Number of workers.
        self.processes = processes
        options = ("--app", APP, "--processes", str(processes), "--queues", QUEUES, "--log-format", "json")
        # A demo that is killed stops the node, which must not wait long then.
        hurry = ("--shutdown-timeout", "5", "--interrupt-timeout", "1")
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                spawn.command([sys.executable, "-m", "qworkerd", *options, *hurry]),
                env=environment(os.environ) | {"QWORKER_DSN": dsn},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C is handled by the demo.
                start_new_session=True,
            )
        #: The events of its log.
        self.events = Events(log)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def await_ready(self) -> None:
        """Wait until the first worker is ready; raises NodeEnded."""
        while not any(self.events.find("supervisor.ready")):
            self.check()
            sleep(READ_INTERVAL)
            self.events.read_new()

    def check(self) -> None:
        """Raise NodeEnded, with the end of the log, if the node is not running."""
        code = self._process.poll()
        if code is not None:
            self.events.read_new()
            raise NodeEnded(f"the node ended with exit code {code}:\n{self.events.end_reason()}")

    def stop(self) -> int:
        """Stop the node after its running jobs; return the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The node has ended, unless there was an error; its jobs need not finish then.
        with suppress(subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(15)
        self._process.kill()
        self._process.wait()


def environment(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without settings, and independent of the folder."""
    kept = {name: value for name, value in caller.items() if not name.startswith(FOREIGN)}
    if path := kept.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in path.split(os.pathsep))
    return kept
