"""Identify processes by what proc(5) says of them."""


def start_ticks(pid: int) -> int | None:
    """Return the start time of a process (clock ticks since boot, field 22); None if it is gone or a zombie.

    A pid and a start time together identify a process uniquely.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - in every start of a child
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


def alive(pid: int, ticks: int) -> bool:
    """Tell whether the process that started at this time still runs."""
    return start_ticks(pid) == ticks
