"""A folder with somebody's application, in which commands run as its owner would type them."""

import json
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from qworkerd.config.settings import field_specs, option
from tests.waiting import until

#: Runs what it is told, in one namespace, and says when it is done.
SESSION = """
import json, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(json.loads(line), space)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    print("\\0", flush=True)
"""
READY = '"event": "supervisor.ready"'
#: The options of a node: a command line of nothing else starts one.
OPTIONS = {option(name) for name in field_specs()}


class Project:
    """Runs `python` and `qworker` in its folder; a node runs on until the end of the `with`."""

    def __init__(self, folder: Path, dsn: str, **environment: str) -> None:
        self.folder = folder
        self._environment: dict[str, str] = os.environ | {"QWORKER_DSN": dsn, "DATABASE_URL": dsn} | environment
        self._nodes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._session: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session and the nodes; fail if a node did not end in order."""
        if self._session is not None:
            self._session.communicate(timeout=20)
        for node, _ in self._nodes:
            node.terminate()
        for node, log in self._nodes:
            try:
                code = node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                raise
            assert code == 0, log.read_text()

    def write(self, name: str, text: str) -> None:
        """Put a file into the folder."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def say(self, code: str) -> str:
        """Run Python in the project's one session; return what it printed, a traceback included."""
        if self._session is None:
            pipe = subprocess.PIPE
            self._session = subprocess.Popen(
                [sys.executable, "-c", SESSION],
                cwd=self.folder,
                env=self._environment,
                stdin=pipe,
                stdout=pipe,
                text=True,
            )
        assert self._session.stdin
        assert self._session.stdout
        self._session.stdin.write(json.dumps(code) + "\n")
        self._session.stdin.flush()
        return "".join(iter(self._session.stdout.readline, "\0\n"))

    def type(self, line: str) -> str:
        """Run a command line to its end, or a node until it is ready; return what it printed."""
        program, *words = shlex.split(line, comments=True)
        if program == "export":
            return ""
        start = {
            "python": [sys.executable],
            "qworker": [sys.executable, "-m", "qworkerd"],
            "flask": [sys.executable, "-m", "flask"],
        }[program]
        runs = program == "qworker" and words[0] in OPTIONS
        if (runs or (program in ("flask", "python") and {"qworker", "run"} <= set(words))) and "--burst" not in words:
            self._start([*start, *words])
            return ""
        done = subprocess.run(
            [*start, *words], cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _start(self, command: list[str]) -> None:
        log = self.folder / f"node-{len(self._nodes)}.log"
        with log.open("wb") as file:
            node = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self._nodes.append((node, log))
        with suppress(AssertionError):
            until(
                lambda: READY in log.read_text() or node.poll() is not None, 60
            )  # the SDK of Sentry imports for seconds
        assert READY in log.read_text(), log.read_text()
