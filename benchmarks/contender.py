"""A peer of the comparison: how it is installed, filled, started, watched and stopped.

Run by the benchmark's own Python, which has none of them; `python` is one that has requirements.txt. All is as a peer
comes, durability included, but for two things: workers log warnings only, and jobs have a time limit where one exists
but is not set by default (TIME_LIMIT).
"""

import os
import shlex
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

PEERS = Path(__file__).parent / "peers"

#: How long a job of Celery, Huey or Oban may take, in seconds; RQ's default. PgQueuer and Procrastinate have no limit.
TIME_LIMIT = 180


class Contender(ABC):
    """A peer with one way to run it. Methods are called in turn: install, then clear, fill, start, stop repeatedly."""

    broker: ClassVar[Literal["postgresql", "redis"]]
    #: Its script in `peers`, without `.py`.
    module: ClassVar[str]

    def __init__(self, name: str, python: str, url: str) -> None:
        self.name = name
        self.python = Path(python).absolute()
        #: Jobs filled in since the last clear.
        self.enqueued = 0
        #: Seconds of the last fill.
        self.filled = 0.0
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(PEERS),
            "PEER_URL": url,
            "PEER_TIME_LIMIT": str(TIME_LIMIT),
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def install(self) -> None:
        """Create its schema, unless it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Delete all jobs, results and history."""

    def fill(self, jobs: int) -> float:
        """Enqueue no-ops by the fastest way it documents; return the seconds, connecting included."""
        self.enqueued += jobs
        self.filled = self.script("fill", jobs)
        return self.filled

    def start(self, processes: int) -> None:
        self._workers += [
            subprocess.Popen(
                command, env=self.environment, cwd=PEERS, stdout=subprocess.DEVNULL, start_new_session=True
            )
            for command in self.commands(processes)
        ]

    @abstractmethod
    def commands(self, processes: int) -> list[list[str]]:
        """Say what to start for that many worker processes."""

    @abstractmethod
    def begun(self) -> bool:
        """Whether the first job was taken."""

    @abstractmethod
    def left(self) -> bool:
        """Whether a job is not yet acknowledged, waiting or running."""

    @abstractmethod
    def acknowledged(self) -> int:
        """Count the jobs recorded as done; where none are recorded, those enqueued that are gone."""

    def stop(self) -> float:
        """End the workers with SIGTERM, what is left of them after 15 s with SIGKILL; return the CPU seconds of all.

        A process whose parent did not wait for it is missing from the CPU seconds.
        """
        before = os.times()
        for worker in self._workers:
            worker.terminate()
        until = time.monotonic() + 15
        for worker in self._workers:
            # WNOWAIT: while the leader is a zombie, no other process can be given the session's number.
            while time.monotonic() < until and not os.waitid(
                os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ):
                time.sleep(0.01)
            while remaining := session(worker.pid):
                for pid in remaining:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
            worker.wait()
        self._workers.clear()
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def command(self, name: str, arguments: str = "") -> list[str]:
        """Complete a command that was installed beside the peers' Python."""
        return [str(self.python.with_name(name)), *shlex.split(arguments)]

    def run(self, command: list[str]) -> str:
        return subprocess.run(
            command, env=self.environment, cwd=PEERS, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def script(self, verb: str, *numbers: int) -> float:
        """Call a function of the peer's module in a process of its own; return the seconds it took."""
        printed = self.run([str(self.python), "script.py", self.module, verb, *map(str, numbers)])
        return float(printed.split()[-1])


def session(leader: int) -> list[int]:
    """List the living processes of a session; zombies are dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # proc_pid_stat(5): state, parent, group and session follow the name, which may hold anything.
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state not in "ZX":
                found.append(int(stat.parent.name))
    return found
