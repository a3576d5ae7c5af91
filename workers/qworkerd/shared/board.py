"""A text that one process of a node leaves for the others, in memory that they share."""

import mmap

_WORD = 8
#: Maximum size of the text (bytes).
MAX_BYTES = 1 << 20


class Board:
    """Two halves for a text: the writer fills the one that is not in use, and then switches by one store."""

    __slots__ = ("_halves", "_words")

    #: Which half is in use, and the sizes of both texts.
    _CURRENT, _SIZE = 0, 1

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, 3 * _WORD + 2 * MAX_BYTES))
        self._words, self._halves = memory[: 3 * _WORD].cast("q"), memory[3 * _WORD :]

    def write(self, text: str) -> bool:
        """Replace the text; return False if it is too long."""
        data = text.encode()
        if len(data) > MAX_BYTES:
            return False
        half = 1 - self._words[Board._CURRENT]
        self._halves[half * MAX_BYTES : half * MAX_BYTES + len(data)] = data
        self._words[Board._SIZE + half] = len(data)
        self._words[Board._CURRENT] = half
        return True

    def read(self) -> str:
        """Return the text; empty before the first one. A reader that is slower than two writes gets a mixture."""
        half = self._words[Board._CURRENT]
        size = self._words[Board._SIZE + half]
        return bytes(self._halves[half * MAX_BYTES : half * MAX_BYTES + size]).decode(errors="replace")
