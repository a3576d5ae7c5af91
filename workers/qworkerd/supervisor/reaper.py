"""Reap children: kill the rest of their process group, determine the cause of death, mark their slot dead."""

import os
import resource
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from qworkerd.process import exits
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import Entry
from qworkerd.shared.slots import Slot
from qworkerd.supervisor.evidence import OomCounter, describe


@dataclass(frozen=True, slots=True)
class ChildExit:
    """The exit status and resource usage of a child."""

    pid: int
    code: int
    #: Peak resident memory in MiB, and processor seconds.
    maxrss: int
    cpu: float


def reap() -> Iterator[ChildExit]:
    """Yield every child that has exited, after killing its process group.

    The group is killed while its leader is a zombie: until the leader is reaped, neither its pid nor the group id can
    be reused. A job's subprocesses are killed even if the worker exited normally.
    """
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        kill_group(info.si_pid)
        pid, status, usage = os.wait4(info.si_pid, 0)
        yield ChildExit(
            pid=pid, code=os.waitstatus_to_exitcode(status), maxrss=usage.ru_maxrss // 1024, cpu=_cpu(usage)
        )


def _cpu(usage: resource.struct_rusage) -> float:
    return round(usage.ru_utime + usage.ru_stime, 3)


def kill_group(pid: int) -> None:
    """Kill a child and its process group; the child must not have been reaped.

    The pid is signalled as well as the group, because a handler can move its process to another group of the session
    (setpgid(2)), and killpg(2) would not find it. Until the child is reaped its pid cannot be reused.
    """
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


class CauseFinder:
    """Determines the cause of a child's death."""

    def __init__(self) -> None:
        self._oom = OomCounter()

    def cause_of(
        self,
        exited: ChildExit,
        kill_reason: Cause | None,
        sent: Collection[int] = (),
        *,
        cancelled_another: bool = False,
    ) -> str:
        """Return the cause: the supervisor's reason to kill the child, "oom", "signal:SEGV", "exit:1" ...

        sent: the signals that the supervisor has sent to the child. cancelled_another: the scheduler has signalled the
        child to cancel a job other than the one that ran. If a handler has replaced the worker's signal handler by
        SIG_DFL, that signal kills the worker, and no attempt of the job that ran is counted.
        """
        signum = -exited.code
        if kill_reason and (signum == signal.SIGKILL or signum in sent):
            return kill_reason
        if signum == signal.SIGKILL and self._oom.increased():
            return Cause.OOM
        if signum in sent:
            return Cause.SHUTDOWN
        if signum == signal.SIGUSR1 and cancelled_another:
            return Cause.CANCELLED
        return describe(exited.code)


def expected_exit(exited: ChildExit, running: Entry | None) -> bool:
    """Return whether a child exited as requested or to be replaced, and not while a handler ran."""
    return running is None and exited.code in (exits.OK, exits.RECYCLE)


def keep_or_free_slot(slot: Slot, cause: str, exited: ChildExit) -> bool:
    """Mark the slot dead if the child has open claims, else free it; return whether it was marked dead."""
    if any(slot.open_claims()):
        slot.mark_dead(cause, exited.maxrss, exited.cpu)
        return True
    slot.free()
    return False
