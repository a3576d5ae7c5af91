"""`qworker doctor --watch`: what changes is printed and sent once, whatever becomes of the service that receives it."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from qworker.errors import DatabaseUnavailable
from qworker.findings import Finding, Severity
from qworkerd.doctor.examination import Examination, Skipped
from qworkerd.doctor.watch import Watch
from qworkerd.doctor.webhook import MAX_ABANDONED, WebhookError, check_url, display_url, post
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_doctor import job
from tests.waiting import until

SECRET = "/services/T0/s3cr3t?key=hunter2"


class Receiver(HTTPServer):
    """Keeps what it receives; answers with the statuses it is given, and then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[Any] = []
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"http://user:pass@127.0.0.1:{self.server_port}{SECRET}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Basic dXNlcjpwYXNz"
        self.server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def finding(about: str = "queue mail", summary: str = "nobody serves it") -> Finding:
    return Finding("unserved-queue", about, Severity.STOPS, summary, remedy=("qworker --queues mail",))


class Clinic:
    """Watches results that a test sets."""

    def __init__(self, url: str | None) -> None:
        self.result: Examination | Exception = Examination()
        self.lines: list[str] = []
        self.slept: list[float] = []
        self.watch = Watch(
            self.examine, frozenset({"unserved-queue"}), self.lines.append,
            webhook=url, sleep=self.slept.append, subject=("postgresql://host/db", "qworker"),
        )  # fmt: skip

    def examine(self) -> Examination:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def round(self, *findings: Finding, skipped: tuple[Skipped, ...] = ()) -> None:
        self.result = Examination(list(findings), list(skipped))
        self.watch.round()


def test_a_change_is_sent_once_and_its_end_once(receiver: Receiver) -> None:
    clinic = Clinic(receiver.url)
    clinic.round()
    assert receiver.received == []
    clinic.round(finding())
    clinic.round(finding(summary="nobody serves it for longer"))
    ((path, kind, body),) = receiver.received
    assert (path, kind) == (SECRET, "application/json")
    assert body["found"][0]["remedy"] == ["qworker --queues mail"]
    assert "[stops] nobody serves it (unserved-queue)" in body["text"]
    clinic.round()
    assert receiver.received[1][2]["resolved"][0]["about"] == "queue mail"
    assert len(receiver.received) == 2
    assert len(clinic.lines) == 2


def test_a_check_that_was_not_made_resolves_nothing(receiver: Receiver) -> None:
    clinic = Clinic(receiver.url)
    clinic.round(finding())
    clinic.round(skipped=(Skipped("unserved-queue", "timed out"),))
    clinic.result = DatabaseUnavailable("no connection")
    clinic.watch.round()
    clinic.round(finding())
    assert [line.split(maxsplit=2)[2] for line in clinic.lines] == [
        "stops: unserved-queue: nobody serves it",
        "stops: unreachable: the database cannot be reached: no connection",
        "resolved: unreachable",
    ]


def test_what_was_not_accepted_is_sent_with_the_next_round(receiver: Receiver) -> None:
    clinic = Clinic(receiver.url)
    receiver.statuses = [503, 503, 503]
    clinic.round(finding())
    assert len(receiver.received) == 3
    assert clinic.slept == [1.0, 2.0]
    assert "http://127.0.0.1" in clinic.lines[-1]
    assert "answered with status 503, in 3 attempts" in clinic.lines[-1]
    clinic.round(finding(), finding("queue sms"))
    assert [found["about"] for found in receiver.received[3][2]["found"]] == ["queue mail", "queue sms"]
    clinic.round(finding(), finding("queue sms"))
    assert len(receiver.received) == 4


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (302, 1), (429, 3), (500, 3)])
def test_only_what_may_pass_is_tried_again_and_redirects_are_not_followed(
    receiver: Receiver, status: int, requests: int
) -> None:
    receiver.statuses = [status] * 3
    with pytest.raises(WebhookError, match=str(status)):
        post(receiver.url, b"{}", lambda _: None)
    assert len(receiver.received) == requests


def test_an_answer_that_arrives_byte_by_byte_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.doctor.webhook.REQUEST_LIMIT", 0.2)
    monkeypatch.setattr("qworkerd.doctor.webhook.ATTEMPTS", 1)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
                    connection.send(bytes([byte]))
                    if ended.wait(0.02):
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        begun = monotonic()
        with pytest.raises(WebhookError, match="was not reached: TimeoutError"):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", lambda _: None)
        assert monotonic() - begun < 5
        ended.set()
        thread.join()


def test_secrets_of_the_url_are_never_printed(receiver: Receiver) -> None:
    assert display_url(receiver.url) == f"http://127.0.0.1:{receiver.server_port}/***"
    clinic = Clinic("http://user:pass@127.0.0.1:1/s3cr3t?key=hunter2")
    clinic.round(finding())
    text = "\n".join(clinic.lines)
    assert "not sent" in text
    assert not any(secret in text for secret in ("s3cr3t", "hunter2", "user", "pass"))
    with pytest.raises(ValueError, match="must begin with https") as raised:
        check_url("ftp://host/s3cr3t")
    assert "s3cr3t" not in str(raised.value)


def test_the_command_watches_until_it_is_interrupted(
    command: Command, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[float] = []

    def tick(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) == 1:
            job(database.connect(), queue="mail")
        elif len(ticks) == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("qworkerd.cli.doctor.sleep", tick)
    before = signal.getsignal(signal.SIGTERM)
    done = command(
        "doctor", "--watch", "--interval", "7", "--only", "unserved-queue", env={"QWORKER_WEBHOOK": receiver.url}
    )
    signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 0
    assert ticks == [7, 7, 7]
    assert done.stdout.count("stops: unserved-queue: queue 'mail' holds 1 available job") == 1
    assert [body["found"][0]["check"] for _, _, body in receiver.received] == ["unserved-queue"]
    told = done.output + json.dumps(receiver.received[0][2])
    secret = conninfo_to_dict(database.dsn)["password"]
    assert str(secret) not in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--interval", "5"), "--interval needs --watch"),
        (("--watch", "--webhook", "mailto:x"), "must begin with https://"),
    ],
)
def test_wrong_use_is_explained(command: Command, words: tuple[str, ...], message: str) -> None:
    done = command("doctor", *words)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "url",
    ["http://h:99999/s3cr3t", "http://h:abc/s3cr3t", "http://a..b/s3cr3t", f"http://{'x' * 300}/s3cr3t", "http://[::1/s3cr3t",
     "http://\u202e/s3cr3t", "http://h/s3cr3t-é", "http://h/s3cr3t\n", "http://h/ s3cr3t", "http://h:0/s3cr3t", "http:///s3cr3t",
     "s3cr3t"],
)  # fmt: skip
def test_a_url_that_cannot_be_posted_to_is_refused_at_once(url: str) -> None:
    """It ended the watch when the first problem was to be sent, with a traceback that had the secret."""
    with pytest.raises(ValueError, match="URL of a webhook") as refused:
        check_url(url)
    assert "s3cr3t" not in str(refused.value)
    assert "s3cr3t" not in str(refused.value.__cause__)


def test_requests_without_end_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that never ends its answer keeps a thread; the next changes are not sent while there are several."""
    monkeypatch.setattr("qworkerd.doctor.webhook.REQUEST_LIMIT", 0.05)
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for _ in range(2 * MAX_ABANDONED):
            with pytest.raises(WebhookError):
                post(url, b"{}", lambda _: None)
        assert threading.active_count() - before <= MAX_ABANDONED
    until(lambda: threading.active_count() <= before)
