"""Fork a child and prepare its process before its main function runs."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from qworkerd.process import exits
from qworkerd.process.proc import start_ticks
from qworkerd.process.signals import HANDLED, ignore
from qworkerd.process.spawn import set_pdeathsig
from qworkerd.shared.slots import Role, Slot
from qworkerd.shared.stacks import stop_dumping

_PR_SET_NAME = 15

_libc = ctypes.CDLL(None)

#: The signal a child receives when its supervisor dies. Workers are killed at once, because their timeouts would no
#: longer be enforced. The scheduler is terminated, and first settles the workers' jobs.
_DEATH_SIGNAL = {Role.WORKER: signal.SIGKILL, Role.SCHEDULER: signal.SIGTERM, Role.EXPORTER: signal.SIGKILL}
_NAMES = {Role.SCHEDULER: b"sched", Role.EXPORTER: b"metrics"}

#: Signals that are blocked until the child has installed its handlers.
BLOCKED = HANDLED | {signal.SIGALRM, signal.SIGUSR1}


def flush() -> None:
    """Flush Python's output buffers, which both processes would otherwise write after a fork."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the application may have replaced them by any object
            stream.flush()


def fork(role: Role, slot: Slot, run: Callable[[Slot], int]) -> int:
    """Fork a child that exits with the result of run; return its pid. Signals must be blocked."""
    flush()
    parent = os.getpid()
    stacks = slot.stacks.attach()  # before the fork, so that a fork hook that hangs can be dumped
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
        os.setpgid(pid, pid)  # parent and child both set the group, so that it is set whichever runs first
    return pid


def _boot(role: Role, slot: Slot, parent: int) -> None:
    """Set up the process as a child of the supervisor; signals that arrive meanwhile remain pending."""
    with suppress(PermissionError):
        os.setpgid(0, 0)
    if not set_pdeathsig(_DEATH_SIGNAL[role], parent):
        os._exit(exits.OK)
    # The name in ps(1) and top(1); the kernel keeps 15 bytes.
    _libc.prctl(_PR_SET_NAME, b"qworker-%b" % _NAMES.get(role, b"%d" % slot.child), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, ignore)
    slot.words[Slot.START_TICKS] = start_ticks(os.getpid()) or 0
    slot.words[Slot.PID] = os.getpid()
    # A background process group is stopped when it reads from the terminal.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    gc.enable()
