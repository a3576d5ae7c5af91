"""Tell systemd how the node is, as sd_notify(3) does; silent when systemd did not start us."""

import os
import socket
from collections.abc import MutableMapping
from time import monotonic
from typing import Final

#: How long systemd may take to accept a message (seconds): the supervisor has children to watch.
SEND_TIMEOUT: Final = 0.2
#: The shortest time between two texts for `systemctl status` (seconds).
STATUS_EVERY: Final = 1.0


class Notifier:
    """The unit's side of Type=notify; call its methods as often as you like, it says nothing twice.

    Takes the variables out of the environment: a subprocess of a job must not speak for the unit. Watchdog messages are
    due after half of WatchdogSec, "every half of the time" (sd_watchdog_enabled(3)); send them from the loop they vouch
    for, and from no thread.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        #: Where systemd listens: a path, or a name in the abstract namespace, which starts with NUL.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        ours = pid in ("", str(os.getpid()))
        #: Seconds between two signs of life; None when systemd does not wait for any.
        self.period = int(period) / 2e6 if self.address and ours and period.isdecimal() and int(period) else None
        self._beat_at = 0.0
        self._status = ""
        self._status_at = 0.0
        self._said: set[str] = set()
        # What systemd had no room for; it goes with the next message.
        self._owed: list[str] = []

    def ready(self) -> None:
        """Say that the unit has started."""
        self._once("READY=1")

    def stopping(self) -> None:
        """Say that the unit is shutting down."""
        self._once("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`: at most once a second, so call it again."""
        line = " ".join(text.split())
        now = monotonic()
        if line != self._status and now >= self._status_at and self._send(f"STATUS={line}"):
            self._status, self._status_at = line, now + STATUS_EVERY

    def watchdog(self) -> None:
        """Say that the loop turns, if it is time to."""
        now = monotonic()
        if self.period is not None and now >= self._beat_at and self._send("WATCHDOG=1"):
            self._beat_at = now + self.period

    def _once(self, state: str) -> None:
        if state not in self._said:
            self._said.add(state)
            if not self._send(state) and self.address:
                self._owed.append(state)

    def _send(self, state: str) -> bool:
        if not self.address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(SEND_TIMEOUT)
                sock.sendto("\n".join([*self._owed, state]).encode(), self.address)
        except OSError:
            return False
        self._owed.clear()
        return True
