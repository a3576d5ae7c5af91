"""What an operator hears of requests that wait for a thread."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qworkerd import log
from qworkerd.web.dispatcher import LATE, REPORT_INTERVAL, Dispatcher
from qworkerd.web.server import THREADS
from tests.waiting import until
from tests.web.conftest import Clock
from tests.web.test_command import start
from tests.web.test_connections import REQUEST

__all__ = ["start"]

#: An application whose connection string is not known while the file `hold` exists, and wrong while `break` does.
SHOP = """
import os, time
from pathlib import Path

from qworker import App

def dsn():
    if Path("break").exists():
        raise RuntimeError("the vault is sealed")
    while Path("hold").exists():
        time.sleep(0.01)
    return os.environ["QWORKER_DSN"]

app = App(dsn)
"""


class Held:
    """A request that is answered when it is let go."""

    def __init__(self) -> None:
        self.begun, self.released, self.ended = threading.Event(), threading.Event(), threading.Event()

    def service(self) -> None:
        self.begun.set()
        assert self.released.wait(60)
        self.ended.set()

    def cancel(self) -> None:
        self.ended.set()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events about requests that wait."""
    found: list[dict[str, Any]] = []

    class Log:
        @staticmethod
        def warning(event: str, **values: Any) -> None:
            assert event == "web.busy"
            found.append(values)

    monkeypatch.setattr(log, "get", Log)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def threads(clock: Clock) -> Iterator[Dispatcher]:
    made = Dispatcher(2, clock)
    yield made
    assert made.shutdown(timeout=60)
    assert not made.threads


def added(threads: Dispatcher, count: int) -> list[Held]:
    tasks = [Held() for _ in range(count)]
    for task in tasks:
        threads.add_task(task)
    return tasks


def let_go(tasks: list[Held]) -> None:
    for task in tasks:
        task.released.set()
    for task in tasks:
        assert task.ended.wait(60)


def test_a_moment_without_an_idle_thread_is_not_told(
    threads: Dispatcher, clock: Clock, busy: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = added(threads, 10)
    clock.now += LATE - 0.01
    let_go(tasks)
    assert busy == []
    assert capfd.readouterr().err == ""


def test_requests_that_are_late_are_told_at_once_and_then_once_a_minute(
    threads: Dispatcher, clock: Clock, busy: list[dict[str, Any]]
) -> None:
    first = added(threads, 2)
    assert all(task.begun.wait(60) for task in first)
    second = added(threads, 3)
    clock.now += LATE
    let_go(first)
    assert all(task.begun.wait(60) for task in second[:2])
    # The other thread may have taken its request, too.
    assert busy in ([{"threads": 2, "waiting": waiting, "late": 1, "waited": LATE}] for waiting in (1, 2))
    # The others belong to the next event.
    clock.now += REPORT_INTERVAL - 0.01
    let_go(second)
    assert len(busy) == 1
    clock.now += 0.01
    third = added(threads, 2)
    assert all(task.begun.wait(60) for task in third)
    fourth = added(threads, 1)
    clock.now += LATE
    let_go([*third, *fourth])
    waited = REPORT_INTERVAL - 0.01 + LATE
    assert busy[1:] == [{"threads": 2, "waiting": 0, "late": 3, "waited": round(waited, 3)}]


def test_threads_that_hang_are_told_by_the_next_request(
    threads: Dispatcher, clock: Clock, busy: list[dict[str, Any]]
) -> None:
    hanging = added(threads, 2)
    assert all(task.begun.wait(60) for task in hanging)
    waiting = added(threads, 1)
    clock.now += 7.5
    assert busy == []
    waiting += added(threads, 1)
    assert busy == [{"threads": 2, "waiting": 2, "late": 0, "waited": 7.5}]
    waiting += added(threads, 1)
    assert len(busy) == 1
    let_go([*hanging, *waiting])


@pytest.fixture
def held(start: Any, tmp_path: Path) -> Iterator[tuple[Any, Callable[[], socket.socket]]]:
    """The dashboard of the application in a process of its own, and what sends it a request."""
    (tmp_path / "shop.py").write_text(SHOP)
    process = start("--port", "0", "--app", "shop:app", "--log-format", "json")
    port = int(process.stdout.readline().rstrip().rstrip("/").rpartition(":")[2])
    with ExitStack() as stack:

        def ask() -> socket.socket:
            conn = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            conn.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            return conn

        yield process, ask


def status(conn: socket.socket) -> int:
    with conn.makefile("rb") as answer:
        return int(answer.read().split()[1])


def last_event(process: Any) -> dict[str, Any]:
    """End the server; return what it has logged, which must be one event."""
    process.terminate()
    assert process.wait(60) == 0
    (line,) = process.stderr.read().splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["role"] == "web"
    return found


def test_an_error_of_a_page_is_an_event(held: Any, tmp_path: Path) -> None:
    process, ask = held
    (tmp_path / "break").touch()
    assert status(ask()) == 500
    found = last_event(process)
    assert (found["level"], found["logger"]) == ("error", "qworkerd.web")
    assert found["exception"].endswith("RuntimeError: the vault is sealed")


def test_the_command_tells_that_requests_wait(held: Any, tmp_path: Path) -> None:
    process, ask = held
    (tmp_path / "hold").touch()
    asked = [ask() for _ in range(THREADS + 2)]

    def told() -> bool:
        asked.append(ask())
        return bool(select.select([process.stderr], [], [], 0.1)[0])

    until(told, 60)
    (tmp_path / "hold").unlink()
    # Of those that held a thread some have waited too long for a connection.
    assert {status(conn) for conn in asked} <= {200, 503}
    until(lambda: status(ask()) == 200, 60)
    found = last_event(process)
    assert (found["level"], found["event"], found["threads"]) == ("warning", "web.busy", THREADS)
    assert found["waiting"] > 0
    assert found["waited"] >= LATE
