"""The last log lines of a process in shared memory, where they survive it and other processes of the node read them."""

from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

#: The number of lines that are kept, and the largest size of one (bytes).
MAX_LINES, MAX_LINE = 200, 4_096
_WORD: Final = 8
#: Bytes before each line: its size.
_SIZE: Final = 2
_STRIDE: Final = _SIZE + MAX_LINE
#: The words of the head.
_JOB, _STARTED, _FIRST = 0, 1, 2
_HEAD: Final = 3 * _WORD
#: Bytes of a ring. Parts that were never written take no memory.
RING_BYTES: Final = _HEAD + MAX_LINES * (_WORD + _STRIDE)


class Lines(NamedTuple):
    """What a ring holds of an attempt."""

    #: Lines of JSON, oldest first.
    lines: list[bytes]
    #: The number of earlier lines, which are not kept.
    dropped: int


class LineRing:
    """The lines of one process, by their numbers. A number is drawn from a counter, so that no thread needs a lock.

    A lock would stay held if an interrupt arrived during a log call. The number of a line is stored after the line, and
    a reader that finds another number behind it than before has read a line that was being replaced.
    """

    __slots__ = ("_lines", "_next", "_numbers", "_started", "_words")

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[:_HEAD].cast("q")
        self._started = memory[:_HEAD].cast("d")
        self._numbers = memory[_HEAD : _HEAD + MAX_LINES * _WORD].cast("q")
        self._lines = memory[_HEAD + MAX_LINES * _WORD : RING_BYTES]
        #: Private to the writer.
        self._next: Callable[[], int] = count(1).__next__

    def clear(self) -> None:
        """Forget all lines; called before another process writes."""
        if self._words[_JOB]:
            self._words[_JOB] = 0
            self._numbers[:] = memoryview(bytes(MAX_LINES * _WORD)).cast("q")

    def begin(self, job: int, started: float) -> None:
        """Begin the lines of an attempt: a job, and when it started (monotonic seconds)."""
        self._words[_JOB] = 0
        self._words[_FIRST], self._started[_STARTED] = self._next(), started
        self._words[_JOB] = job

    def write(self, line: bytes) -> None:
        """Write a line of at most MAX_LINE bytes."""
        number = self._next()
        index = number % MAX_LINES
        at = index * _STRIDE
        self._numbers[index] = 0
        self._lines[at : at + _SIZE + len(line)] = len(line).to_bytes(_SIZE, "little") + line
        self._numbers[index] = number

    def read(self, job: int, started: float) -> Lines | None:
        """Return the last lines of an attempt; None if it has written none.

        The writer may write meanwhile, or may have died in the middle of a line.
        """
        first = self._words[_FIRST]
        if self._words[_JOB] != job or self._started[_STARTED] != started:
            return None
        numbers = sorted(number for number in self._numbers if number > first)
        read = ((number, self._line(number)) for number in numbers)
        found = [line for number, line in read if self._numbers[number % MAX_LINES] == number]
        if self._words[_FIRST] != first or self._words[_JOB] != job:
            return None
        last = numbers[-1] - first if numbers else 0
        return Lines(found, last - len(found))

    def _line(self, number: int) -> bytes:
        at = number % MAX_LINES * _STRIDE
        size = int.from_bytes(self._lines[at : at + _SIZE], "little")
        return bytes(self._lines[at + _SIZE : at + _SIZE + min(size, MAX_LINE)])
