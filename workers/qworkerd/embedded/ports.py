"""TCP ports for servers on this machine."""

import secrets
import socket
from contextlib import suppress

HOST = "127.0.0.1"
# Ports below the kernel's ephemeral range, which begins at 32768 by default. From that range the kernel could assign
# the port of a stopped server to a client that tries to connect to it, and the client would then occupy the port.
_FIRST, _LAST = 20_000, 32_000


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which no process listens, below the kernel's ephemeral range."""
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
