"""Counters that are known by their names, such as one for each kind of log event, in memory that a node shares.

Each process has a region that only it writes, and that its replacement continues: counts never fall. A name is written
before its first count, so a reader needs no lock.
"""

import mmap
import os
from threading import RLock

_WORD = 8
#: Maximum number of names of one process. All others are counted as OTHER.
MAX_NAMES = 512
#: Maximum size of a name; a longer one is cut (bytes).
NAME_BYTES = 72
#: The name of what has no counter of its own.
OTHER = "(other)"

_ENTRY = NAME_BYTES + _WORD
#: Most of the memory is never written, and takes no space.
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


class Counters:
    """The named counters of a node. A process counts after `bind`; before, and in what it forks, nothing is counted."""

    __slots__ = ("_lock", "_memory", "_names", "_owner", "_region", "_seats", "_used")

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._memory = memoryview(mmap.mmap(-1, seats * MAX_NAMES * _ENTRY, flags=_FLAGS))
        self._region = self._memory[:0]
        self._owner = 0
        self._names: dict[str, memoryview[int]] = {}
        self._used = 0
        # A signal handler may count while the same thread counts.
        self._lock = RLock()

    def bind(self, seat: int) -> None:
        """Let this process count in the region of its seat."""
        self._region = self._regions(seat)
        self._lock = RLock()
        self._names = {}
        for at in range(0, MAX_NAMES * _ENTRY, _ENTRY):
            if (name := _name(self._region, at)) is None:
                break
            self._names[name] = self._cell(at)
        self._used = len(self._names)
        self._owner = os.getpid()

    def add(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        # A process that a handler has forked must not write what its parent writes. Its copy of the lock may be held.
        if os.getpid() != self._owner:
            return
        with self._lock:
            cell = self._names.get(name)
            if cell is None:
                cell = self._append(name)
            cell[0] += number

    def read(self) -> dict[str, int]:
        """Return the counters, added over all processes."""
        found: dict[str, int] = {}
        for seat in range(self._seats):
            region = self._regions(seat)
            for at in range(0, MAX_NAMES * _ENTRY, _ENTRY):
                if (name := _name(region, at)) is None:
                    break
                found[name] = found.get(name, 0) + self._value(region, at)
        return found

    def _append(self, name: str) -> "memoryview[int]":
        """Return the cell of a name that this process has not counted before."""
        data = name.replace("\0", "").encode(errors="replace")[:NAME_BYTES]
        short = data.decode(errors="ignore") or OTHER
        if self._used >= MAX_NAMES - 1:  # the last one is for all others
            short = OTHER
        if (cell := self._names.get(short)) is None:
            at = self._used * _ENTRY
            self._region[at : at + NAME_BYTES] = short.encode().ljust(NAME_BYTES, b"\0")
            self._used += 1
            cell = self._names[short] = self._cell(at)
        if len(self._names) < 2 * MAX_NAMES:
            self._names[name] = cell
        return cell

    def _regions(self, seat: int) -> memoryview:
        return self._memory[seat * MAX_NAMES * _ENTRY : (seat + 1) * MAX_NAMES * _ENTRY]

    def _cell(self, at: int) -> "memoryview[int]":
        return self._region[at + NAME_BYTES : at + _ENTRY].cast("q")

    @staticmethod
    def _value(region: memoryview, at: int) -> int:
        return int(region[at + NAME_BYTES : at + _ENTRY].cast("q")[0])


def _name(region: memoryview, at: int) -> str | None:
    """Return the name of an entry; None if it is not used."""
    return bytes(region[at : at + NAME_BYTES]).rstrip(b"\0").decode(errors="replace") or None
