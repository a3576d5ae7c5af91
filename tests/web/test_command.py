"""`qworker web`, as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.database import Database
from tests.environment import ROOT
from tests.waiting import until

PROGRAM = [sys.executable, "-m", "qworkerd"]
COMMAND = [*PROGRAM, "web"]


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def run(*options: str, command: str = "web", around: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        env = os.environ | {"QWORKER_DSN": database.dsn, "PYTHONPATH": f"{ROOT / 'queue'}:{ROOT / 'workers'}"}
        process = subprocess.Popen(
            [*around, *PROGRAM, command, *options],
            env=env,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_a_large_body_is_refused_before_it_is_received(start: Any) -> None:
    process = start("--port", "0")
    port = int(process.stdout.readline().rstrip().rstrip("/").rpartition(":")[2])
    for announced in ("Content-Length: 3000000", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sent:
            sent.sendall(f"POST /jobs/retry HTTP/1.1\r\nHost: localhost\r\n{announced}\r\n\r\n".encode())
            if "chunked" in announced:
                # The server may answer and close before it has received all of it.
                with suppress(ConnectionError):
                    for _ in range(48):
                        sent.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            assert b" 413 " in sent.recv(1_000).partition(b"\r\n")[0], announced


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_with_a_signal(start: Any, signum: signal.Signals) -> None:
    process = start("--port", "0", "--read-only")
    first = process.stdout.readline()
    assert "schema qworker, read-only, is at http://127.0.0.1:" in first
    address = first.rsplit(" ", 1)[1].strip()
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
        assert answer.headers.get("Server") is None
        assert b"Overview" in answer.read()
    process.send_signal(signum)
    assert process.wait(60) == 0
    assert process.stderr.read() == ""


def test_it_serves_a_socket_for_its_user_alone(start: Any, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    process = start("--unix-socket", str(path))
    assert str(path) in process.stdout.readline()
    assert path.stat().st_mode & 0o777 == 0o600
    process.terminate()
    assert process.wait(60) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--host", "0.0.0.0"], 78, "open to everybody"),
        (["--host", "192.0.2.1"], 78, "open to everybody"),
        (["--users-file", "missing"], 78, "missing cannot be read"),
        (["--trust-header", "X-User"], 2, "needs the networks"),
        (["--trust-header", "X-User", "--trust-cidr", "10/x"], 2, "10/x"),
        (["--rights", "fly away"], 2, "is not a right"),
        (["--port", "70000"], 2, "70000"),
    ],
)
def test_it_is_closed_by_default(start: Any, options: list[str], code: int, message: str) -> None:
    process = start(*options)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, message in errors) == (code, True), errors


def test_users_and_tokens_are_added_to_their_files(start: Any, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'queue'}:{ROOT / 'workers'}"}

    def run(*words: str, given: str = "") -> str:
        done = subprocess.run(
            [*COMMAND, *words], env=env, cwd=tmp_path, text=True, input=given, capture_output=True, check=True
        )
        return done.stdout

    assert "rights job.retry" in run(
        "passwd", "anna", "--users-file", "users", "--rights", "job.retry", given="secret one\n"
    )
    token = run("token", "monitoring", "--tokens-file", "tokens").strip()
    assert token.startswith("qw_")
    assert token not in (tmp_path / "tokens").read_text()

    process = start("--host", "0.0.0.0", "--port", "0", "--users-file", "users", "--tokens-file", "tokens")
    address = process.stdout.readline().rsplit(" ", 1)[1].strip().replace("0.0.0.0", "127.0.0.1")
    request = urllib.request.Request(f"{address}overview.json", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(address) as answer:
        assert answer.url.endswith("/sign-in?next=%2F")


def test_the_demo_shows_a_living_system(start: Any) -> None:
    process = start("--web", "--port", "0", "--processes", "2", command="demo")
    line = ""
    while "the dashboard is at" not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()
    address = line.rsplit(" ", 1)[1].strip()

    def overview() -> Any:
        with urllib.request.urlopen(f"{address}overview.json") as answer:
            return json.loads(answer.read())

    assert overview()["nodes"] == 1
    until(lambda: any(row["depth"] for row in overview()["queues"]), 30, "no size was sampled")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
