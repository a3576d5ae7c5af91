"""Serves the dashboard by waitress, on an address that must be private unless users are authenticated."""

import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from qworker.errors import ConfigurationError

#: Threads that answer; bytes of the headers of a request.
THREADS, MAX_HEADERS = 8, 32_768
#: Connections, each of which is a file, and other files of the process. A browser keeps up to six open while it shows
#: a page, and a proxy its own: a limit that they reach would lock out everybody else.
CONNECTIONS, OTHER_FILES = 4_000, 96
#: Seconds until a silent connection is closed, longer than the time between two refreshes, and between two looks.
CHANNEL_TIMEOUT, CLEANUP_INTERVAL = 20, 5
#: Bytes of a body that waitress takes. It stores the body, in a file if it is large, before anybody has asked whose it
#: is. The application takes less, and refuses the rest with a page.
MAX_RECEIVED = 2_097_152


def check_address(host: str, *, authenticated: bool) -> None:
    """Raise ConfigurationError if others reach this address and nobody checks who they are."""
    if not authenticated and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} is reached by other machines, and the dashboard would be open to everybody: name "
            "--users-file, --tokens-file or --trust-header, or use --host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name is not believed, but for localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(app: Any, *, host: str, port: int, unix_socket: Path | None = None, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. ready: called with the address as soon as requests are accepted."""
    require()
    from waitress.server import create_server

    from qworkerd.web.dispatcher import Dispatcher

    # What waitress tells at the level of info, such as that a client is gone, is not for operators.
    logging.getLogger("waitress").setLevel(logging.WARNING)
    options: dict[str, Any] = {
        "_dispatcher": Dispatcher(THREADS), "channel_timeout": CHANNEL_TIMEOUT, "cleanup_interval": CLEANUP_INTERVAL,
        "ident": None, "connection_limit": connection_limit(),
        # select() takes no file whose number is above 1,023.
        "asyncore_use_poll": True,
        "max_request_header_size": MAX_HEADERS, "max_request_body_size": MAX_RECEIVED,
        "clear_untrusted_proxy_headers": False, "expose_tracebacks": False,
    }  # fmt: skip
    if unix_socket is not None:
        # waitress deletes a socket that a killed server has left.
        server = create_server(app, unix_socket=str(unix_socket), unix_socket_perms="600", **options)
    else:
        server = create_server(app, sockets=_bound(host, port), **options)
    # As process 1 of a container SIGTERM would be ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ready(str(unix_socket) if unix_socket else address(host, server.effective_port))
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        # A second signal must not interrupt the end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.close()
        if unix_socket is not None:
            with suppress(OSError):
                unix_socket.unlink()


def connection_limit() -> int:
    """Return how many connections the process may have, after raising its own limit of open files as far as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, soft - OTHER_FILES))


def require() -> None:
    """Raise ConfigurationError if the packages of the extra are missing."""
    missing = [name for name in ("flask", "waitress") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"the dashboard needs {' and '.join(missing)}: pip install 'pgqworker[web]'")


def address(host: str, port: int) -> str:
    """Return the URL of the dashboard."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _bound(host: str, port: int) -> list[socket.socket]:
    try:
        found: Iterable[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationError(f"--host {host} is not an address of this machine: {error.strerror}") from None
    family, kind, protocol, _, where = next(iter(found))
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"cannot serve on {host} port {port}: {error.strerror}; choose another --port"
        ) from None
    return [bound]
