"""Identify processes by what proc(5) says of them."""

#: The index of field 22 behind the state, which is field 3.
_STARTTIME = 22 - 4


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


def alive(pid: int, ticks: int) -> bool:
    """Return whether the process that started at this time is still running."""
    return start_ticks(pid) == ticks
