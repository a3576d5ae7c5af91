"""Fork a child and boot it in the right order."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from qworkerd.process import exits
from qworkerd.process.signals import ANSWERED, ignore
from qworkerd.shared.slots import Role, Slot
from qworkerd.shared.stacks import stop_dumping

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

_libc = ctypes.CDLL(None, use_errno=True)

#: What a child gets when its supervisor dies. A worker is killed on the spot: nobody would enforce its timeouts. The
#: scheduler lives on to settle what the workers have left.
_DEATH_SIGNAL = {Role.WORKER: signal.SIGKILL, Role.SCHEDULER: signal.SIGTERM}

#: Blocked until the child has handlers of its own.
BLOCKED = ANSWERED | {signal.SIGALRM, signal.SIGUSR1}


def flush() -> None:
    """Write out what Python still buffers, or both sides of a fork would write it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the application may have put anything in their place
            stream.flush()


def fork(role: Role, slot: Slot, run: Callable[[Slot], int]) -> int:
    """Fork a child that ends with run's result as its exit code; return its pid. Signals must be blocked."""
    flush()
    parent = os.getpid()
    stacks = slot.stacks.attach()  # before the fork: what hangs in somebody's fork hook can be asked as well
    try:
        pid = os.fork()
    except OSError:
        stop_dumping()
        os.close(stacks)
        raise
    if pid == 0:
        code = exits.SOFTWARE
        try:
            _boot(role, slot, parent)
            code = run(slot)
        except BaseException:  # noqa: BLE001 - nothing may unwind into the supervisor's frames
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                flush()
            finally:
                os._exit(code)
    stop_dumping()
    os.close(stacks)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)  # both sides do it, so that nobody sees the child outside of its group
    return pid


def _boot(role: Role, slot: Slot, parent: int) -> None:
    """Make the process a child of ours; a signal that comes meanwhile stays pending."""
    with suppress(PermissionError):
        os.setpgid(0, 0)
    _libc.prctl(PR_SET_PDEATHSIG, int(_DEATH_SIGNAL[role]), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew our wish
        os._exit(exits.OK)
    # What ps(1) and top(1) call it; the kernel keeps 15 bytes.
    _libc.prctl(PR_SET_NAME, b"qworker-%b" % (b"sched" if role is Role.SCHEDULER else b"%d" % slot.child), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, ignore)
    slot.words[Slot.START_TICKS] = start_ticks(os.getpid()) or 0
    slot.words[Slot.PID] = os.getpid()
    # A background process group that read the terminal would be stopped.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    gc.enable()


def start_ticks(pid: int) -> int | None:
    """Return when a process started (clock ticks since boot, proc(5) field 22); None when it is gone or a zombie.

    Together with the pid it names one process for ever.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in b"ZX" else int(fields[19])
