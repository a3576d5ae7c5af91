"""Reap dead children: end what is left of their group, find out why they died, dig the grave."""

import os
import resource
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from qworkerd.process import exits
from qworkerd.shared.claim import Entry
from qworkerd.shared.slots import Slot
from qworkerd.supervisor.evidence import OomCounter, describe


@dataclass(frozen=True, slots=True)
class ChildExit:
    """What the kernel says of a child's end."""

    pid: int
    code: int
    #: Peak resident memory in MiB, and processor seconds.
    maxrss: int
    cpu: float


def reap() -> Iterator[ChildExit]:
    """Yield every dead child, its process group killed.

    The group is killed while its leader is still a zombie: as long as that is not reaped, neither the pid nor the group
    id can name anything else. Subprocesses of the job go with it, also when the worker ended by itself.
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
        yield ChildExit(pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss // 1024, _cpu(usage))


def _cpu(usage: resource.struct_rusage) -> float:
    return round(usage.ru_utime + usage.ru_stime, 3)


def kill_group(pid: int) -> None:
    """Kill a child and everything it has started in its own process group; the child must not have been reaped.

    The pid as well as the group: a handler can move its process into another group of the session (setpgid(2)), and
    killpg(2) would then find nobody. Until it is reaped the pid names this child alone.
    """
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


class CauseFinder:
    """Names the cause of a death."""

    def __init__(self) -> None:
        self._oom = OomCounter()

    def cause_of(
        self, exited: ChildExit, kill_reason: str, sent: Collection[int] = (), *, cancelled_another: bool = False
    ) -> str:
        """Return the cause: our own sentence, "oom", "signal:SEGV", "exit:1" ...

        sent are the signals that the child got from its supervisor; cancelled_another says that the scheduler has
        signalled it to end a job other than the one it ran. Where a handler has replaced the worker's answer to a
        signal by SIG_DFL, the worker dies of the order. The job that ran is not charged for it.
        """
        signum = -exited.code
        if kill_reason and (signum == signal.SIGKILL or signum in sent):
            return kill_reason
        if signum == signal.SIGKILL and self._oom.rose():
            return "oom"
        if signum in sent:
            return "shutdown"
        if signum == signal.SIGUSR1 and cancelled_another:
            return "cancelled"
        return describe(exited.code)


def expected_exit(death: ChildExit, running: Entry | None) -> bool:
    """Tell whether a child ended in good order: as it was asked to, or to be replaced, and outside of any handler."""
    return running is None and death.code in (exits.OK, exits.RECYCLE)


def keep_or_free_slot(slot: Slot, cause: str, death: ChildExit) -> bool:
    """Leave the slot as a grave if the dead child held claims, else free it; tell whether it is a grave."""
    if any(slot.open_claims()):
        slot.mark_dead(cause, death.maxrss, death.cpu)
        return True
    slot.free()
    return False
