"""Serves metrics and probes: /metrics, /healthz, /readyz."""

import socket
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from socketserver import TCPServer
from threading import BoundedSemaphore
from time import monotonic, sleep
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from qworkerd import log
from qworkerd.exporter.collector import Collector
from qworkerd.process import application_metrics
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Phase, Role, Slot

#: Time that a client may take to send a request and to read the answer (seconds): for a part of it, and in all.
CLIENT_TIMEOUT, REQUEST_TIMEOUT = 5.0, 15.0
#: Maximum number of clients, and of scrapes at the same time. Probes are answered besides: they cost nothing.
MAX_CLIENTS, MAX_SCRAPES = 64, 8
#: Time that the threads of clients that were disconnected have to end before another client is accepted (seconds).
ENDING_TIMEOUT = 0.5
#: A scrape that takes longer hangs: the files of the application may be on a filesystem that does not answer (seconds).
HANGING_AFTER = 60.0
#: The supervisor is healthy if its loop ran this recently (seconds).
HEALTHY_WITHIN = 10.0


class Server(ThreadingHTTPServer):
    """The HTTP server of a node."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, node: NodeContext, host: str, port: int) -> None:
        self._registry, self._application = CollectorRegistry(), CollectorRegistry()
        self._registry.register(Collector(node))
        self._application_failed = False
        if application_metrics.folder() is not None:
            self._register_application()
        self._node = node
        self._free = BoundedSemaphore(MAX_SCRAPES)
        #: When each scrape that is being answered has begun (monotonic).
        self._scrapes: dict[object, float] = {}
        #: The connections of clients, the oldest first, and when each is ended (monotonic).
        self._clients: dict[socket.socket, float] = {}
        #: The same, and those that were ended and whose threads have not closed them yet.
        self._connected: set[socket.socket] = set()
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self.paths: dict[str, Callable[[str], tuple[int, str, bytes]]] = {
            "/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz,
        }  # fmt: skip
        super().__init__((host, port), Handler)

    def _register_application(self) -> None:
        try:
            MultiProcessCollector(self._application)  # type: ignore[no-untyped-call]
        except ValueError as error:  # the variable of the environment names no folder
            log.get().error("exporter.application_metrics_failed", error=str(error))

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        if (page := self.paths.get(path.partition("?")[0])) is None:
            return 404, "text/plain", b"not found: /metrics, /healthz and /readyz are served\n"
        return page(accept)

    def server_bind(self) -> None:
        """Bind without looking up the name of the address, which would hang while the name server does not answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the signature is the base's
        """Return whether to answer a client. If there are too many, the one that takes the longest gives way."""
        if len(self._clients) >= MAX_CLIENTS:
            self._disconnect(next(iter(self._clients), None))
        until = monotonic() + ENDING_TIMEOUT
        while len(self._connected) >= 2 * MAX_CLIENTS:
            if monotonic() > until:
                return False
            sleep(0.001)
        self._connected.add(request)
        self._clients[request] = monotonic() + REQUEST_TIMEOUT
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close the connection of a client."""
        self._clients.pop(request, None)
        self._connected.discard(request)
        super().shutdown_request(request)

    def disconnect_overdue(self) -> None:
        """End the connections of clients that take too long: one that sends a byte at a time never times out."""
        now = monotonic()
        for request, until in list(self._clients.items()):
            if now > until:
                self._disconnect(request)

    def _disconnect(self, client: socket.socket | None) -> None:
        """End a connection; its thread notices, and closes it."""
        if client is not None and self._clients.pop(client, None) is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error of one client: it has closed the connection, or was too slow."""

    def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        if not self._free.acquire(blocking=False):
            return 503, "text/plain", b"too many requests\n"
        scrape = object()
        self._scrapes[scrape] = monotonic()
        try:
            encode, content_type = _encoder(accept)
            return 200, content_type, _joined(encode(self._registry), self._metrics_of_application(encode))
        finally:
            del self._scrapes[scrape]
            self._free.release()

    @property
    def hangs(self) -> bool:
        """Whether a scrape does not end: the process has to be replaced, because its threads cannot be ended."""
        return min(list(self._scrapes.values()), default=inf) < monotonic() - HANGING_AFTER

    def _metrics_of_application(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        """Return the metrics of the application; nothing if they cannot be read, which must not hide ours."""
        try:
            found = encode(self._application)
        except Exception as error:  # noqa: BLE001 - files and names are those of the application
            if not self._application_failed:
                log.get().error("exporter.application_metrics_failed", error=f"{type(error).__name__}: {error}")
            self._application_failed = True
            return b""
        self._application_failed = False
        return found

    def _healthz(self, _: str) -> tuple[int, str, bytes]:
        silent = boottime() - self._node.table.header.supervisor_seen_at
        return _probe([f"the supervisor has not run for {silent:.0f} s"] if silent > HEALTHY_WITHIN else [])

    def _readyz(self, _: str) -> tuple[int, str, bytes]:
        header, table = self._node.table.header, self._node.table
        problems = []
        if not header.node or header.lease_until <= boottime():
            problems.append("the node has no lease")
        if header.draining:
            problems.append("the node is shutting down")
        if all(slot.words[Slot.PHASE] == Phase.BOOTING for slot in table.live(Role.WORKER)):
            problems.append("no worker is ready")
        return _probe(problems)


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the encoder that a client accepts; the one of plain text if its header makes no sense."""
    try:
        return choose_encoder(accept)
    except Exception:  # noqa: BLE001 - a header may be anything
        return choose_encoder("")


def _joined(first: bytes, second: bytes) -> bytes:
    """Return two documents as one; that of OpenMetrics ends with a line."""
    end = b"# EOF\n"
    return first.removesuffix(end) + second if second.endswith(end) else first + second


def _probe(problems: list[str]) -> tuple[int, str, bytes]:
    return (503 if problems else 200), "text/plain", ("; ".join(problems) or "ok").encode() + b"\n"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = CLIENT_TIMEOUT
    server_version, sys_version = "qworker", ""

    def do_GET(self) -> None:
        """Answer a GET request."""
        status, content_type, body = self.server.answer(self.path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name is that of BaseHTTPRequestHandler

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature is that of the base class
        """Log no requests."""
