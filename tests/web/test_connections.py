"""Connections that say nothing, or say it slowly, lock nobody out of `qworker web`."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import pytest

from qworkerd.web import server
from qworkerd.web.server import CHANNEL_TIMEOUT, CLEANUP_INTERVAL, CONNECTIONS, OTHER_FILES, THREADS
from tests.waiting import until
from tests.web.test_command import start

__all__ = ["start"]

IDLE, SLOW = 1_000, 4 * THREADS
REQUEST = b"GET /overview.json HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def connect(start: Any) -> Iterator[Callable[[], socket.socket]]:
    """Connect to a dashboard in a process of its own, whose limit of open files is below the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + SLOW + 1_000:
        pytest.skip(f"a process may open {hard:,} files here")
    # The tests before this one may have opened more files than the dashboard may.
    process = start("--port", "0", around=("prlimit", f"--nofile=512:{hard}"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + SLOW + 1_000), hard))
    port = int(process.stdout.readline().rstrip().rstrip("/").rpartition(":")[2])
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answered(conn: socket.socket) -> float:
    """Ask for the overview; return the seconds until the answer has come."""
    began = time.monotonic()
    conn.sendall(REQUEST)
    answer = HTTPResponse(conn)
    answer.begin()
    assert (answer.status, answer.read()[:1]) == (200, b"{")
    return time.monotonic() - began


def test_a_thousand_idle_browsers_lock_nobody_out(connect: Callable[[], socket.socket]) -> None:
    idle = [connect() for _ in range(IDLE)]
    # They have asked for something, and keep their connections.
    for conn in idle[:: IDLE // 20]:
        answered(conn)
    assert answered(connect()) < 5
    # The connections of those that are gone are closed; one that refreshes its page stays.
    refreshed = connect()

    def closed() -> bool:
        answered(refreshed)
        return not any(alive(conn) for conn in idle)

    until(closed, CHANNEL_TIMEOUT + 4 * CLEANUP_INTERVAL, "idle connections stay")
    answered(refreshed)


def alive(conn: socket.socket) -> bool:
    conn.setblocking(False)
    try:
        while data := conn.recv(65_536):
            assert data
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def test_slow_requests_hold_no_thread(connect: Callable[[], socket.socket]) -> None:
    headers, body, reader = ([connect() for _ in range(SLOW)] for _ in range(3))
    for conn in headers:
        conn.sendall(REQUEST[:-20])
    for conn in body:
        conn.sendall(b"POST /queues/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nname=")
    # They ask for much, and read nothing.
    for conn in reader:
        conn.sendall(REQUEST * 20)
    for step in range(5):
        for conn in (*headers, *body):
            conn.sendall(REQUEST[-20 + step : -19 + step] if conn in headers else b"x")
        assert answered(connect()) < 5


@pytest.mark.parametrize(
    ("limits", "expected", "raised"),
    [
        ((1_024, 524_288), CONNECTIONS, CONNECTIONS + OTHER_FILES),
        ((1_024, 1_024), 1_024 - OTHER_FILES, 1_024),
        ((1_024, resource.RLIM_INFINITY), CONNECTIONS, CONNECTIONS + OTHER_FILES),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), CONNECTIONS, None),
        ((50_000, 50_000), CONNECTIONS, None),
    ],
)
def test_the_limit_of_open_files_is_respected(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], expected: int, raised: int | None
) -> None:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: found.append(wanted))
    assert server.connection_limit() == expected
    assert found == ([] if raised is None else [(raised, limits[1])])
