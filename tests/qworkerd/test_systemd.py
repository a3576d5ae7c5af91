"""What the node says to systemd, and whether systemd understands the unit."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from qworkerd.config.settings import Settings
from qworkerd.supervisor import systemd
from qworkerd.supervisor.systemd import Notifier
from tests.waiting import until

ROOT = Path(__file__).parents[2]
#: The unit to adapt, and the one that `qworker init` writes.
UNITS = {
    "adapt": ROOT / "systemd" / "qworker.service",
    "init": ROOT / "workers" / "qworkerd" / "cli" / "templates" / "common" / "qworker.service.in",
}


class Listener:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    with made.socket:
        yield made


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000", "HOME": "/"}


def test_ready_stopping_and_status_are_reported_once(listener: Listener, environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready()
    notifier.ready()
    notifier.status("8/8 workers,\n3 busy")
    notifier.status("8/8 workers, 3 busy")
    notifier.stopping()
    notifier.stopping()
    assert [listener.heard() for _ in range(3)] == ["READY=1", "STATUS=8/8 workers, 3 busy", "STOPPING=1"]
    assert listener.silent()


def test_the_newest_status_is_shown_within_a_second_and_none_in_between(
    listener: Listener, environ: dict[str, str]
) -> None:
    notifier = Notifier(environ)
    started = monotonic()
    notifier.status("one")
    notifier.status("two")

    def third_heard() -> bool:
        notifier.status("three")
        return not listener.silent()

    assert listener.heard() == "STATUS=one"
    until(third_heard)
    assert monotonic() - started >= systemd.STATUS_INTERVAL * 0.9


def test_subprocesses_of_jobs_cannot_speak_for_the_unit(environ: dict[str, str]) -> None:
    Notifier({**environ, "WATCHDOG_PID": "1"})
    Notifier(environ)
    assert environ == {"HOME": "/"}


def test_the_watchdog_hears_of_us_every_half_of_its_time(
    listener: Listener, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(systemd, "monotonic", lambda: now)
    notifier = Notifier(environ)
    for moment, heard in ((1000.0, True), (1014.9, False), (1015.0, True), (1029.9, False), (1030.0, True)):
        now = moment
        notifier.watchdog()
        assert listener.silent() is not heard, now


@pytest.mark.parametrize("variables", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_that_waits_for_somebody_else_hears_nothing(
    listener: Listener, environ: dict[str, str], variables: dict[str, str]
) -> None:
    notifier = Notifier(environ | variables)
    notifier.watchdog()
    assert listener.silent()


def test_our_own_pid_in_watchdog_pid_is_us(listener: Listener, environ: dict[str, str]) -> None:
    Notifier(environ | {"WATCHDOG_PID": str(os.getpid())}).watchdog()
    assert listener.heard() == "WATCHDOG=1"


def test_abstract_sockets_are_understood() -> None:
    name = f"qworker-test-{os.getpid()}"
    listener = Listener(f"\0{name}")
    with listener.socket:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listener.heard() == "READY=1"


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.status("x")
    notifier.watchdog()
    notifier.stopping()
    assert notifier.period is None


def test_a_message_that_found_no_listener_comes_with_the_next(tmp_path: Path, environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready()
    listener = Listener(str(tmp_path / "notify"))
    with listener.socket:
        notifier.watchdog()
        assert listener.heard() == "READY=1\nWATCHDOG=1"


def test_a_full_socket_does_not_hold_the_supervisor_up(listener: Listener, environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        try:
            while True:
                filler.sendto(b"x", listener.socket.getsockname())
        except BlockingIOError:
            pass
        started = monotonic()
        notifier.ready()
        assert monotonic() - started < 25 * systemd.SEND_TIMEOUT


@pytest.fixture(params=UNITS)
def text(request: pytest.FixtureRequest) -> str:
    return UNITS[request.param].read_text()


@pytest.fixture
def unit(text: str) -> dict[str, str]:
    lines = text.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_systemd_accepts_the_unit(tmp_path: Path, text: str, unit: dict[str, str]) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "systemd-analyze is not installed: apt-get install systemd"
    program = unit["ExecStart"].split()[0]
    copy = tmp_path / "qworker.service"
    copy.write_text(text.replace(program, sys.executable).replace("User=qworker", "User=root"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--generators=no", str(copy)], capture_output=True, text=True, check=False
    )
    about_it = [line for line in (done.stdout + done.stderr).splitlines() if "qworker" in line]
    assert not about_it
    assert done.returncode == 0, done.stderr


def test_the_unit_says_what_the_design_asks_for(unit: dict[str, str]) -> None:
    wanted = {"Type": "notify", "KillMode": "mixed", "OOMPolicy": "continue", "KillSignal": "SIGTERM"}
    assert wanted.items() <= unit.items()
    assert "78" in unit["RestartPreventExitStatus"].split()
    assert float(unit["WatchdogSec"]) >= 10


def test_the_unit_waits_as_long_as_a_shutdown_with_default_settings_takes(unit: dict[str, str]) -> None:
    assert int(unit["TimeoutStopSec"]) == Settings().stop_timeout
