"""The number of columns that a text occupies on a terminal."""

from unicodedata import category, east_asian_width

_WIDE, _NONE = frozenset("WF"), frozenset(("Mn", "Me"))


def width(text: str) -> int:
    """Return the number of columns of a text without characters that a terminal interprets."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fitting(text: str, room: int) -> int:
    """Return how many characters of a text fit into a number of columns."""
    if text.isascii():
        return min(len(text), max(0, room))
    used = 0
    for count, character in enumerate(text):
        used += _columns(character)
        if used > room:
            return count
    return len(text)


def _columns(character: str) -> int:
    return 0 if category(character) in _NONE else 2 if east_asian_width(character) in _WIDE else 1
