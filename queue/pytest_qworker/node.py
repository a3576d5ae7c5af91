"""A node in a process of its own, for tests from end to end."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_qworker.application import name_of

#: Time allowed for the start and for the stop of the node (seconds).
START_TIMEOUT, STOP_TIMEOUT = 30.0, 20.0
#: Interval between two looks at its log (seconds).
_POLL = 0.01


class Node:
    """Runs `qworker` in the current directory, with one worker, until the end of the `with` block."""

    def __init__(self, app: str, dsn: str) -> None:
        self._app = name_of(app)
        self._dsn = dsn
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-node-")
        #: The log of the node, as JSON lines.
        self.log = Path(self._folder.name) / "log"

    def __enter__(self) -> Self:
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "QWORKER_APP": self._app,
            "QWORKER_DSN": self._dsn, "QWORKER_LOG_FORMAT": "json", "QWORKER_PROCESSES": "1",
            "QWORKER_POLL_INTERVAL": "0.1",
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
                self._stop()
                raise RuntimeError(f"the node did not start:\n{text}")
            time.sleep(_POLL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
