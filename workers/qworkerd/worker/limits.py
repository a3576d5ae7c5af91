"""Restores the timers and resource limits that a job has set, and that would end its process during another job."""

import faulthandler
import resource
import signal
import sys
from collections.abc import Callable

# The functions below `signal`: the wrappers there take a microsecond to convert an error.
getitimer: Callable[[int], tuple[float, float]] = sys.modules["_signal"].getitimer

#: Timers besides that of the job's timeout. The default action of their signals ends the process.
_TIMERS = {"ITIMER_VIRTUAL": signal.ITIMER_VIRTUAL, "ITIMER_PROF": signal.ITIMER_PROF}
#: Each costs a system call after a job of more than 0.2 ms.
_LIMITS = {
    "RLIMIT_CPU": resource.RLIMIT_CPU,
    "RLIMIT_AS": resource.RLIMIT_AS,
    "RLIMIT_NOFILE": resource.RLIMIT_NOFILE,
}
_OFF = (0.0, 0.0)


class Limits:
    """The timers and limits of a process as they were when its application had started."""

    def __init__(self) -> None:
        self._timers: dict[str, int] = {}
        self._limits: dict[str, tuple[int, int]] = {}

    def record(self) -> None:
        """Record the limits, and which timers are off: one that the application has started runs through all jobs."""
        self._timers = {name: timer for name, timer in _TIMERS.items() if getitimer(timer) == _OFF}
        self._limits = {name: resource.getrlimit(limit) for name, limit in _LIMITS.items()}

    def restore(self) -> list[str]:
        """Undo changes, and return the names of what had changed.

        A lowered hard limit cannot be raised again; the soft limit is then raised to it.
        """
        faulthandler.cancel_dump_traceback_later()  # which cannot be asked whether it was set
        found = [name for name, timer in self._timers.items() if getitimer(timer) != _OFF]
        for name in found:
            signal.setitimer(_TIMERS[name], 0)
        for name, before in self._limits.items():
            limit = _LIMITS[name]
            if (now := resource.getrlimit(limit)) != before:
                found.append(name)
                soft, hard = before[0], now[1]
                unlimited = resource.RLIM_INFINITY
                lowered = hard != unlimited and (soft == unlimited or soft > hard)
                resource.setrlimit(limit, (hard if lowered else soft, hard))
                self._limits[name] = resource.getrlimit(limit)
        return found
