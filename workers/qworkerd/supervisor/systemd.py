"""Reports the node's state to systemd as sd_notify(3) does; does nothing if systemd did not start the process."""

import os
import socket
from collections.abc import MutableMapping
from time import monotonic
from typing import Final

#: How long to wait for systemd to accept a message (seconds): the supervisor must not be delayed.
SEND_TIMEOUT: Final = 0.2
#: Minimum interval of status messages (seconds).
STATUS_INTERVAL: Final = 1.0


class Notifier:
    """The service side of Type=notify. Methods can be called repeatedly; a message is sent only when something changes.

    The constructor removes the variables from the environment, so that a job's subprocess cannot notify for the unit.
    Watchdog messages are sent after half of WatchdogSec, as sd_watchdog_enabled(3) recommends. Send them from the loop
    that they monitor, not from another thread.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        #: The address of systemd's socket: a path, or a name in the abstract namespace, which starts with NUL.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        for_this_process = pid in ("", str(os.getpid()))
        #: Interval of watchdog messages (seconds); None if the watchdog is not enabled.
        self.period = (
            int(period) / 2e6 if self.address and for_this_process and period.isdecimal() and int(period) else None
        )
        self._watchdog_at = 0.0
        self._status = ""
        self._status_at = 0.0
        self._sent: set[str] = set()
        # Messages that could not be sent because the socket was full; they are sent with the next one.
        self._unsent: list[str] = []

    def ready(self) -> None:
        """Notify that the unit has started."""
        self._send_once("READY=1")

    def stopping(self) -> None:
        """Notify that the unit is shutting down."""
        self._send_once("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line shown by `systemctl status`, at most once a second: call it again later."""
        line = " ".join(text.split())
        now = monotonic()
        if line != self._status and now >= self._status_at and self._send(f"STATUS={line}"):
            self._status, self._status_at = line, now + STATUS_INTERVAL

    def watchdog(self) -> None:
        """Send a watchdog message if it is due."""
        now = monotonic()
        if self.period is not None and now >= self._watchdog_at and self._send("WATCHDOG=1"):
            self._watchdog_at = now + self.period

    def _send_once(self, state: str) -> None:
        if state not in self._sent:
            self._sent.add(state)
            if not self._send(state) and self.address:
                self._unsent.append(state)

    def _send(self, state: str) -> bool:
        if not self.address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(SEND_TIMEOUT)
                sock.sendto("\n".join([*self._unsent, state]).encode(), self.address)
        except OSError:
            return False
        self._unsent.clear()
        return True
