"""The pairs of queue and task that a node has counted, numbered in memory that its processes share."""

import mmap
from operator import itemgetter

from qworkerd.shared.lock import ProcessLock

_WORD = 8
#: Maximum number of series. All others are counted as OTHER.
MAX_SERIES = 1024
#: The number of the process itself: its claims and acknowledgements, not jobs.
PROCESS = 0
#: The number and the names of the series for what has no number of its own.
OTHER, OTHER_NAMES = 1, ("(other)", "(other)")
#: The first number of a pair.
FIRST = 2

#: Bytes for the names: each pair needs those of its names and two words.
_NAMES = 1 << 19


class SeriesNumbers(dict[tuple[str, str], int]):
    """The number of each pair of queue and task. A pair that is looked up first gets the next number.

    Numbers are never reused. Each process has a copy of the pairs that it has looked up; the pairs themselves are in
    shared memory, and are appended under a lock: names first, then the count. A reader needs no lock.
    """

    __slots__ = ("_count", "_lock", "_memory", "_read")

    def __init__(self) -> None:
        super().__init__()
        memory = memoryview(mmap.mmap(-1, _WORD + _NAMES))
        self._count, self._memory = memory[:_WORD].cast("q"), memory[_WORD:]
        self._lock = ProcessLock("qworker-series")
        # The number of pairs that this process has read, and the bytes of their names.
        self._read = 0, 0

    def __missing__(self, names: tuple[str, str]) -> int:
        """Return the number of a pair that this process has not looked up before."""
        number = self._find(names)
        if number is None:
            with self._lock:
                number = self._find(names)
                if number is None:
                    number = self._append(names)
        return number

    def names(self) -> list[tuple[str, str]]:
        """Return the pairs in the order of their numbers, which begin at FIRST."""
        self._find(OTHER_NAMES)
        return [names for names, _ in sorted(self.items(), key=itemgetter(1))]

    def _find(self, names: tuple[str, str]) -> int | None:
        """Read the pairs that were added since the last call; return the number of a pair, or None."""
        count, used = self._read
        for number in range(count, self._count[0]):
            sizes = self._memory[used : used + _WORD].cast("i")
            queue = used + _WORD
            task = queue + sizes[0]
            end = task + sizes[1]
            self[str(self._memory[queue:task], "utf-8"), str(self._memory[task:end], "utf-8")] = FIRST + number
            used += _size(end - queue)
            self._read = number + 1, used
        return self.get(names)

    def _append(self, names: tuple[str, str]) -> int:
        """Append a pair; the caller holds the lock and has read all pairs."""
        count, used = self._read
        queue, task = (name.encode(errors="replace") for name in names)
        both = queue + task
        if FIRST + count >= MAX_SERIES or used + _size(len(both)) > _NAMES:
            return OTHER
        sizes = self._memory[used : used + _WORD].cast("i")
        sizes[0], sizes[1] = len(queue), len(task)
        at = used + _WORD
        self._memory[at : at + len(both)] = both
        self._count[0] = count + 1
        return FIRST + count


def _size(names: int) -> int:
    """Return the bytes that a pair takes: two sizes and the names, in whole words."""
    return _WORD + -(-names // _WORD) * _WORD
