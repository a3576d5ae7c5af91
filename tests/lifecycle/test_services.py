"""A node as systemd and supervisord see it: what it tells them, and how they start and stop it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.lifecycle.cluster import Cluster
from tests.lifecycle.node import session
from tests.waiting import until

ROOT = Path(__file__).parents[2]


class Manager:
    """systemd's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(15)
        self.heard: list[str] = []

    def hear(self, wanted: Callable[[str], bool], count: int = 1) -> None:
        """Listen until something wanted was said so many times, from the beginning on."""
        until = time.monotonic() + 15
        while sum(map(wanted, self.heard)) < count:
            # What is not wanted does not prolong the wait: the signs of life never end.
            assert time.monotonic() < until, self.heard
            self.heard += self.socket.recv(4096).decode().splitlines()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    with made.socket:
        yield made


def test_systemd_hears_of_start_life_and_end(cluster: Cluster, manager: Manager, tmp_path: Path) -> None:
    node = cluster.start("--processes", "2", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
    manager.hear(lambda message: message == "READY=1")
    manager.hear(lambda message: message.startswith("STATUS=") and "2/2 workers" in message)
    manager.hear(lambda message: message == "WATCHDOG=1", manager.heard.count("WATCHDOG=1") + 3)
    assert "STOPPING=1" not in manager.heard
    node.signal(signal.SIGTERM)
    manager.hear(lambda message: message == "STOPPING=1")
    assert node.wait() == 0
    assert manager.heard.count("READY=1") == 1


@pytest.fixture
def supervisord(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A supervisord with the program file that is shipped; yields supervisorctl."""
    program = RawConfigParser(inline_comment_prefixes=(";",))
    program.read(ROOT / "supervisor" / "qworker.conf")
    changed = {
        "command": f"{sys.executable} -m qworkerd --app tests.lifecycle.handlers:app --processes 2",
        "directory": str(ROOT),
        "environment": f'QWORKER_DSN="{cluster.database.dsn.replace("%", "%%")}",QWORKER_TEST_DIR="{tmp_path}"',
        "stdout_logfile": str(tmp_path / "out.log"),
        "stderr_logfile": str(tmp_path / "err.log"),
        "startsecs": "1",
    }
    for name, value in changed.items():
        program.set("program:qworker", name, value)
    program.remove_option("program:qworker", "user")
    sections: dict[str, dict[str, object]] = {
        "supervisord": {"logfile": tmp_path / "supervisord.log", "pidfile": tmp_path / "supervisord.pid"},
        "unix_http_server": {"file": tmp_path / "control"},
        "supervisorctl": {"serverurl": f"unix://{tmp_path}/control"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for section, options in sections.items():
        program.add_section(section)
        for name, text in options.items():
            program.set(section, name, str(text))
    path = tmp_path / "supervisord.conf"
    with path.open("w") as file:
        program.write(file)

    def control(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisorctl", "-c", path, *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout

    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", path],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        yield control
    finally:
        process.terminate()
        process.wait(60)


def test_supervisord_starts_and_stops_a_node(supervisord: Callable[..., str], cluster: Cluster, tmp_path: Path) -> None:
    until(lambda: "RUNNING" in supervisord("status", "qworker"), 20, what=lambda: supervisord("status"))
    pid = int(supervisord("pid", "qworker"))
    until(lambda: cluster.query("SELECT id FROM qworker.node"), 20, what=(tmp_path / "err.log").read_text)
    supervisord("stop", "qworker")
    assert "STOPPED" in supervisord("status", "qworker")
    log = (tmp_path / "err.log").read_text()
    assert '"supervisor.stopped", "exit_code": 0' in log
    assert session(pid) is None
    assert cluster.query("SELECT id FROM qworker.node") == []
