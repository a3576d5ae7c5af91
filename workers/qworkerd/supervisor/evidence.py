"""Evidence of why a process died: its exit status and the kernel's count of out-of-memory kills."""

import signal
from contextlib import suppress
from pathlib import Path

from qworkerd.shared.cause import Cause

_UNKNOWN = -1


def describe(code: int) -> str:
    """Return a name for an exit code from os.waitstatus_to_exitcode: "exit:1", "signal:SEGV"."""
    if code >= 0:
        return Cause.EXIT.detailed(code)
    with suppress(ValueError):
        return Cause.SIGNAL.detailed(signal.Signals(-code).name.removeprefix("SIG"))
    return Cause.SIGNAL.detailed(-code)


def _counters() -> list[Path]:
    """Return the files that may count this cgroup's out-of-memory kills: cgroup v2, then v1 (cgroups(7))."""
    with suppress(OSError):
        found = []
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
                found.append(Path("/sys/fs/cgroup/memory.events"))
            elif "memory" in controllers.split(","):
                found.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
                found.append(Path("/sys/fs/cgroup/memory/memory.oom_control"))
        return found
    return []


class OomCounter:
    """Detects whether the kernel has killed a process of this cgroup for lack of memory since the last call."""

    def __init__(self) -> None:
        self._file = next((f for f in _counters() if self._read(f) != _UNKNOWN), None)
        self._last_count = self._count()

    @staticmethod
    def _read(file: Path) -> int:
        with suppress(OSError):
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return _UNKNOWN

    def _count(self) -> int:
        return self._read(self._file) if self._file else _UNKNOWN

    def increased(self) -> bool:
        """Return whether the count has increased; False where no counter is available."""
        before, self._last_count = self._last_count, self._count()
        return self._last_count > before
