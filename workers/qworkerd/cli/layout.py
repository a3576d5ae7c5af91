"""Columns that fit a terminal: what is too wide is broken into lines, and nothing is left out."""

import re
from collections.abc import Iterator, Sequence
from unicodedata import combining, east_asian_width

#: Columns are not made narrower than this, nor, up to the second, than what is only broken where nothing else helps.
NARROWEST, UNBROKEN = 10, 16
#: A note below its row takes this many lines at most, and begins this far in.
NOTE_LINES, NOTE_INDENT = 2, 4
_GAP = "  "
#: Where a cell may be broken: at spaces, and after these.
_BREAKS = ".,/_-"
_CHUNK = re.compile(rf"[^ {re.escape(_BREAKS)}]+[{re.escape(_BREAKS)}]*")


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None) -> Iterator[str]:
    """Yield the lines of a table in aligned columns; `right` says which are numbers, `room` how wide a line may be.

    In a terminal that is too narrow cells are broken, and where that is not enough each row becomes a block of lines.
    """
    widths = [max(_width(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if room is not None:
        widths = _narrowed((head, *rows), widths, right, room)
        if _total(widths) > room:
            yield from _blocks(head, rows, room)
            return
    for row in (head, *rows):
        yield from _row(row, widths, right)


def noted(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None) -> Iterator[str]:
    """Yield the lines of a table whose last column is a note; it goes below its row when it does not fit beside it."""
    widths = [max(_width(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if room is None or _total(widths) <= room:
        yield from lines(head, rows, right, room)
        return
    widths = _narrowed([head[:-1], *(row[:-1] for row in rows)], widths[:-1], right[:-1], room)
    if _total(widths) > room:
        yield from lines(head, rows, right, room)
        return
    yield from _row(head[:-1], widths, right[:-1])
    for row in rows:
        yield from _row(row[:-1], widths, right[:-1])
        if row[-1] != "-":
            yield from _note(row[-1], room)


def _note(text: str, room: int) -> list[str]:
    room = max(NARROWEST, room - NOTE_INDENT)
    shown = _broken(text, room)
    if len(shown) > NOTE_LINES:
        shown = [*shown[: NOTE_LINES - 1], f"{_broken(shown[NOTE_LINES - 1], room - 2)[0]} …"]
    return [" " * NOTE_INDENT + line.rstrip() for line in shown]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1


def _fitting(text: str, width: int) -> int:
    """Return how many characters of a text fit; at least one."""
    if text.isascii():
        return max(1, width)
    taken, count = 0, 0
    for character in text:
        taken += _columns(character)
        if taken > width:
            break
        count += 1
    return max(1, count)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrowed(table: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool], room: int) -> list[int]:
    """Take from the widest column that can be broken, until the line fits or none can give more."""
    found = list(widths)
    least = [
        width if number else min(width, max(_width(title), NARROWEST, *map(_unbroken, cells)))
        for width, number, (title, *cells) in zip(widths, right, zip(*table, strict=True), strict=True)
    ]
    while _total(found) > room:
        spare = [column for column in range(len(found)) if found[column] > least[column]]
        if not spare:
            break
        found[max(spare, key=lambda column: found[column])] -= 1
    return found


def _unbroken(cell: str) -> int:
    return min(UNBROKEN, max(map(_width, _CHUNK.findall(cell)), default=0))


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    cells = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        yield _GAP.join(
            " " * (width - _width(part)) + part if number_ else part + " " * (width - _width(part))
            for part, width, number_ in zip(parts, widths, right, strict=True)
        ).rstrip()


def _broken(cell: str, width: int) -> list[str]:
    """Break a cell: at a space if there is one, else after a mark, else where it has to be."""
    found = []
    while _width(cell) > width:
        fitting = _fitting(cell, width)
        at = cell.rfind(" ", 1, fitting + 1)
        if at < 0:
            at = max(cell.rfind(mark, 0, fitting) for mark in _BREAKS) + 1 or fitting
        found.append(cell[:at].rstrip())
        cell = cell[at:].lstrip()
    return [*found, cell]


def _blocks(head: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> Iterator[str]:
    label = max(map(len, head))
    for number, row in enumerate(rows):
        if number:
            yield ""
        for title, cell in zip(head, row, strict=True):
            first, *rest = _broken(cell, max(NARROWEST, room - label - len(_GAP)))
            yield f"{title:<{label}}{_GAP}{first}"
            yield from (" " * (label + len(_GAP)) + part for part in rest)
