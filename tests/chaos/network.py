"""A network namespace with one cable to the machine, which can be unplugged: the kernel's own way of losing packets."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import until


class Namespace:
    """Where a node of its own network runs; `enter` precedes its command. Takes root and iproute2.

    It lives as long as one process of it: nothing is left when the tests are killed.
    """

    def __init__(self) -> None:
        net = f"169.254.{secrets.randbelow(254) + 1}"
        start = 4 * secrets.randbelow(63)
        #: The machine's address on the cable, and the other end's.
        self.host, self._guest = f"{net}.{start + 1}", f"{net}.{start + 2}"
        self._plug = f"qw{secrets.token_hex(4)}"
        self._holder: subprocess.Popen[bytes] | None = None

    @classmethod
    def possible(cls) -> bool:
        """Tell whether namespaces, and cables between them, can be made here."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return False
        try:
            with cls():
                return True
        except AssertionError:
            return False

    @property
    def enter(self) -> tuple[str, ...]:
        """The command that runs what follows in the namespace."""
        assert self._holder is not None
        return ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--")

    def __enter__(self) -> Self:
        holder = self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stderr=subprocess.DEVNULL)
        try:
            self._lay(holder.pid)
        except BaseException:
            self._end()
            raise
        return self

    def _lay(self, holder: int) -> None:
        """Lay the cable, once the holder has its namespace."""
        here = Path("/proc/self/ns/net").readlink()
        until(lambda: (there := _namespace(holder)) is None or there != here)
        _run("ip", "link", "add", self._plug, "type", "veth", "peer", "name", "cable", "netns", str(holder))
        _run("ip", "address", "add", f"{self.host}/30", "dev", self._plug)
        _run(*self.enter, "ip", "address", "add", f"{self._guest}/30", "dev", "cable")
        for device in ("lo", "cable"):
            _run(*self.enter, "ip", "link", "set", device, "up")
        self.plug()

    def _end(self) -> None:
        """Let go of the namespace; its cable goes with it."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def unplug(self) -> None:
        """Lose every packet, in both directions, without a word."""
        _run("ip", "link", "set", self._plug, "down")

    def plug(self) -> None:
        """Let packets through."""
        _run("ip", "link", "set", self._plug, "up")


def _namespace(pid: int) -> Path | None:
    """Return the name of a process's namespace; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
