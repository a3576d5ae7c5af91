"""A network between a node and its database that a test can break."""

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworkerd.embedded import free_port

_CHUNK = 65_536


class Proxy:
    """Forwards connections to PostgreSQL; `dsn` leads through it.

    `hold` is a line that has gone silent: nothing is lost, nothing arrives until `flow`, and connecting seems to work.
    `forget` is a proxy whose server has gone without a word: it takes what comes over the connections that there are,
    and never answers; new ones work.
    `lag` is a slow line: every piece of data waits.
    `refuse` is a dead host whose neighbours say so: open connections are reset, new ones refused until `flow`.
    """

    def __init__(self, dsn: str, host: str = "127.0.0.1") -> None:
        there = conninfo_to_dict(dsn)
        self._target = (str(there["host"]), int(str(there["port"])))
        # No ephemeral port: a client could be given it for a connection of its own while nobody listens.
        self._port = free_port()
        self._host = host
        self._listener = self._listen()
        self.dsn = make_conninfo(dsn, host=host, port=self._port)
        self._peers: dict[socket.socket, socket.socket] = {}
        #: The ends of connections that were forgotten.
        self._lost: dict[socket.socket, socket.socket] = {}
        self._forgets = False
        self._mode = "flow"
        self._delay = 0.0
        self._heard, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._turn("close")
        self._thread.join()
        os.close(self._heard)
        os.close(self._bell)

    def hold(self) -> None:
        """Forward nothing any more, in either direction."""
        self._turn("hold")

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._turn("refuse")

    def forget(self) -> None:
        """Leave the connections that there are without an answer, for ever."""
        self._forgets = True
        self._turn("flow")

    def lag(self, seconds: float) -> None:
        """Forward each piece of data after so long."""
        self._delay = seconds
        self._turn("flow")

    def flow(self) -> None:
        """Forward again, first of all what was held."""
        self._delay = 0.0
        self._turn("flow")

    def _turn(self, mode: str) -> None:
        self._mode = mode
        os.write(self._bell, b"!")

    def _listen(self) -> socket.socket:
        return socket.create_server((self._host, self._port))

    def _serve(self) -> None:
        while self._mode != "close":
            watched: list[socket.socket | int] = [self._heard]
            if self._mode == "flow":
                watched += [self._listener, *self._peers, *self._lost]
            found = select.select(watched, [], [])[0]
            if self._heard in found:
                os.read(self._heard, 16)
                self._obey()  # and look anew: what was found may be closed now
                continue
            for ready in found:
                if ready == self._listener:
                    self._accept()
                elif ready in self._peers:
                    self._forward(ready)
                elif ready in self._lost:
                    self._swallow(ready)
        self._reset()
        self._listener.close()

    def _obey(self) -> None:
        if self._forgets:
            self._forgets = False
            self._lost |= self._peers
            self._peers.clear()
        if self._mode == "refuse":
            self._listener.close()
            self._reset()
        elif self._mode == "flow" and self._listener.fileno() < 0:
            self._listener = self._listen()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._peers[client], self._peers[server] = server, client

    def _swallow(self, source: socket.socket) -> None:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:  # the other end is not told
            self._lost.pop(source)
            source.close()

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(_CHUNK)
            time.sleep(self._delay)
            self._peers[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._hang_up(self._peers, source)

    @staticmethod
    def _hang_up(among: dict[socket.socket, socket.socket], end: socket.socket) -> None:
        for either in (among.pop(end), end):
            among.pop(either, None)
            either.close()

    def _reset(self) -> None:
        for end in [*self._peers, *self._lost]:
            with suppress(OSError):
                # Closing with a linger time of zero sends RST instead of FIN (socket(7)).
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.close()
        self._peers.clear()
        self._lost.clear()
