"""Runs a program under another account, and lets the kernel signal it when the process that started it dies.

This file is also the script that the new process executes first, because code between fork and exec (`preexec_fn`) may
deadlock in a program with threads. A change of account clears the parent death signal (prctl(2)), so the script sets
the signal after that. It can import the standard library only.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def command(program: Sequence[str | Path], *, account: tuple[int, int] | None = None) -> list[str]:
    """Return the command line that runs `program`, as (user id, group id) if given, with a parent death signal.

    The kernel sends the signal when the *thread* that has started the command ends (prctl(2)), not its process.
    """
    ids = "{}:{}".format(*account) if account else "-"
    # -I and -S: the account may lack the right to read site-packages or PYTHONPATH.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), ids, *map(str, program)]


def set_pdeathsig(number: signal.Signals, parent: int) -> bool:
    """Ask the kernel to signal this process when its parent dies; return whether the parent is still alive.

    If the parent died before the signal was set, no signal is sent.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    return os.getppid() == parent


def main(starter: str, ids: str, *program: str) -> None:
    """Change to the given account, set the parent death signal, and exec the program."""
    if ids != "-":
        uid, gid = map(int, ids.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if not set_pdeathsig(signal.SIGINT, int(starter)):
        sys.exit(f"{program[0]}: the process that started it has ended")
    # A shell starts background processes with SIGINT ignored, and exec would preserve that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
