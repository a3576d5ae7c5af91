"""`qworker top` as a process on a pseudo terminal: its end, signals, and what a pipe gets."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qworker import App
from tests.database import Database
from tests.waiting import until

#: What a terminal is told at the beginning and at the end.
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
#: Makes the terminal that of the session, as a login does, and becomes the command.
_EXEC = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "qworkerd", *sys.argv[1:]])
"""


class Terminal:
    """A program on a pseudo terminal of 100 columns and 30 lines, in a session of its own."""

    def __init__(self, words: Sequence[str], **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
            cwd=Path(__file__).parents[2],
        )  # fmt: skip

    def shows(self, part: bytes, seconds: float = 30.0) -> None:
        """Wait until the program has written this."""
        until(lambda: part in self.read(), seconds, lambda: f"{part!r} in {self.output[-3000:]!r}")

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self, seconds: float = 20.0) -> int:
        """Return the exit code; what it writes is read meanwhile, as a terminal does."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output[-2000:]
            self.read(0.05)
        self.read()
        return self.process.returncode

    def read(self, seconds: float = 0.0) -> bytes:
        """Return what the program has written so far."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                piece = os.read(self.master, 65_536)
            except OSError:
                break
            if not piece:
                break
            self.output += piece
        return self.output

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        for descriptor in (self.master, self.slave):
            with suppress(OSError):
                os.close(descriptor)


@contextmanager
def terminal(*words: str, **environment: str) -> Iterator[Terminal]:
    found = Terminal(words, **environment)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def environment(database: Database) -> dict[str, str]:
    app = App(database.dsn)
    app.task(name="send", queue="emails")(lambda: None).enqueue()
    app.close()
    return {"QWORKER_DSN": database.dsn}


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_a_key_ends_it_and_the_terminal_is_as_before(environment: dict[str, str], key: bytes) -> None:
    with terminal("top", **environment) as screen:
        screen.shows(ENTERED)
        screen.shows(b"emails")
        screen.type(b"2")
        screen.shows(b"DRAIN")
        screen.type(key)
        assert screen.wait() == 0
        assert LEFT in screen.output
        assert termios.tcgetattr(screen.slave) == screen.before


def test_sigterm_ends_it_and_the_terminal_is_as_before(environment: dict[str, str]) -> None:
    with terminal("top", **environment) as screen:
        screen.shows(b"emails")
        screen.process.terminate()
        assert screen.wait() == 0
        assert LEFT in screen.output
        assert termios.tcgetattr(screen.slave) == screen.before


def test_it_ends_with_its_terminal(environment: dict[str, str], database: Database) -> None:
    with terminal("top", **environment) as screen:
        screen.shows(b"emails")
        os.close(screen.slave)
        os.close(screen.master)  # the kernel sends SIGHUP
        assert screen.process.wait(20) in (-signal.SIGHUP, 0, 1)
    conn = database.connect()
    count = b"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qworker client'"
    until(lambda: conn.execute(count).fetchone() == (0,))


def test_it_is_suspended_and_continues(environment: dict[str, str]) -> None:
    with terminal("top", **environment) as screen:
        screen.shows(b"emails")
        screen.type(b"\x1a")
        state = Path(f"/proc/{screen.process.pid}/stat")
        until(lambda: screen.read() and state.read_text().rpartition(")")[2].split()[0] == "T", 20)
        assert LEFT in screen.output
        screen.output = b""
        screen.process.send_signal(signal.SIGCONT)
        screen.shows(ENTERED)
        screen.type(b"2")
        screen.shows(b"DRAIN")
        screen.type(b"q")
        assert screen.wait() == 0


def test_on_a_dumb_terminal_one_frame_is_printed(environment: dict[str, str]) -> None:
    with terminal("top", **environment | {"TERM": "dumb"}) as screen:
        assert screen.wait() == 0
        assert b"emails" in screen.output
        assert b"\x1b" not in screen.output


def test_a_pipe_gets_one_frame_and_json_goes_on(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "qworkerd", "top"]
    env = {**os.environ, **environment}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "emails" in done.stdout
    with subprocess.Popen(
        [*command, "--json", "--interval", "0.2"], env=env, stdout=subprocess.PIPE, text=True
    ) as stream:  # fmt: skip
        assert stream.stdout is not None
        frames = [json.loads(stream.stdout.readline()) for _ in range(3)]
        stream.send_signal(signal.SIGINT)
        assert stream.wait(20) == 0
    assert [frame["queues"][0]["name"] for frame in frames] == ["emails"] * 3
    assert frames[0]["at"] < frames[2]["at"]


def test_a_reader_that_stops_reading_ends_the_stream(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m qworkerd top --json --interval 0.2 2>&1 | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1


def test_without_textual_it_says_what_to_install(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'textual' else find(name, *rest)\n"
    )
    with terminal("top", **environment | {"PYTHONPATH": str(tmp_path)}) as screen:
        assert screen.wait() == 78
        assert b"pip install 'pgqworker[top]'" in screen.output
