"""Identify and measure processes by what proc(5) says of them."""

import os

#: The index of field 22 behind the state, which is field 3.
_STARTTIME = 22 - 4
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: States that keep a process from handling a signal, and others.
_STATES = {
    "R": "running", "S": "sleeping", "D": "in the kernel, waiting for a device or a file system", "T": "stopped",
    "t": "stopped by a debugger", "Z": "dead",
}  # fmt: skip


def start_ticks(pid: int) -> int | None:
    """Return the start time of a process (clock ticks since boot, field 22); None if it is gone or a zombie.

    A pid and a start time together identify a process uniquely.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - in every start of a child
            _, _, after_name = file.read().rpartition(b")")  # the name may contain blanks and parentheses
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = after_name.split()
    return None if state in b"ZX" else int(fields[_STARTTIME])


def resident(pid: int) -> int | None:
    """Return the resident memory of a process in MiB; None if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - in every heartbeat
            return int(file.read().split()[1]) * _PAGE >> 20
    except (OSError, IndexError, ValueError):
        return None


def alive(pid: int, ticks: int) -> bool:
    """Return whether the process that started at this time is still running."""
    return start_ticks(pid) == ticks


def catches(pid: int, signum: int) -> bool:
    """Return whether a process has a handler for a signal."""
    return _is_in_mask(b"SigCgt:", pid, signum)


def blocks(pid: int, signum: int) -> bool:
    """Return whether the main thread of a process has blocked a signal."""
    return _is_in_mask(b"SigBlk:", pid, signum)


def _is_in_mask(name: bytes, pid: int, signum: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - as above
            for line in file:
                if line.startswith(name):
                    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    except OSError:
        pass
    return False


def state_of(pid: int) -> str:
    """Return in words what the kernel says that a process does."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as above
            state = file.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return "gone"
    return _STATES.get(state, f"in state {state}")
