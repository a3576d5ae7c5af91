"""A `qworker` command of the demo's own: started, watched and stopped, and gone when the demo is."""

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
from qworkerd.embedded import spawn

#: Between two looks at the log (seconds).
LOOK = 0.02

APP = "qworkerd.demo.jobs:app"
QUEUES = "default,files"

#: What would change the node's settings, or speak in its name.
FOREIGN = ("QWORKER_", "PG", "DATABASE_URL", "MAX_CONCURRENT_JOBS", "JOB_TIMEOUT", "NOTIFY_SOCKET", "WATCHDOG_")


class NodeEnded(QworkerError):
    """The node ended before it was asked to."""


class Node:
    """A supervisor with so many workers for the demo's tasks; `folder` is where it runs, away from other settings."""

    def __init__(self, processes: int, dsn: str, folder: Path, log: Path) -> None:
        #: How many workers it keeps.
        self.processes = processes
        options = ("--app", APP, "--processes", str(processes), "--queues", QUEUES, "--log-format", "json")
        # A demo that is killed takes the node along: no reason for it to wait long.
        hurry = ("--shutdown-timeout", "5", "--interrupt-timeout", "1")
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                spawn.command([sys.executable, "-m", "qworkerd", *options, *hurry]),
                env=environment(os.environ) | {"QWORKER_DSN": dsn},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C is the demo's to handle.
                start_new_session=True,
            )
        #: What it tells.
        self.events = Events(log)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def await_ready(self) -> None:
        """Wait until its first worker is ready; raises NodeEnded."""
        while not any(self.events.find("supervisor.ready")):
            self.check()
            sleep(LOOK)
            self.events.fresh()

    def check(self) -> None:
        """Raise NodeEnded, with the last that was heard of it, if it does not run."""
        code = self._process.poll()
        if code is not None:
            self.events.fresh()
            raise NodeEnded(f"the node ended with exit code {code}:\n{self.events.last_words()}")

    def stop(self) -> int:
        """Have it finish what runs, and end; return the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # By now it has ended, unless something went wrong: then its jobs need not finish.
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
