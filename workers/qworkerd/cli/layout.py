"""Columns that fit a terminal: what is too wide is broken into lines, and nothing is left out."""

import re
import textwrap
from collections.abc import Iterator, Sequence

#: Columns are not made narrower than this, nor, up to the second, than what is only broken where nothing else helps.
NARROWEST, UNBROKEN = 10, 16
#: A note below its row takes this many lines at most, and begins this far in.
NOTE_LINES, NOTE_INDENT = 2, 4
_GAP = "  "
#: Where a cell may be broken: at spaces, and after these.
_BREAKS = ".,/_"
_CHUNK = re.compile(rf"[^ {_BREAKS}]+[{_BREAKS}]*")


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None) -> Iterator[str]:
    """Yield the lines of a table in aligned columns; `right` says which are numbers, `room` how wide a line may be.

    In a terminal that is too narrow cells are broken, and where that is not enough each row becomes a block of lines.
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if room is not None:
        widths = _narrowed((head, *rows), widths, right, room)
        if _total(widths) > room:
            yield from _blocks(head, rows, room)
            return
    for row in (head, *rows):
        yield from _row(row, widths, right)


def noted(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None) -> Iterator[str]:
    """Yield the lines of a table whose last column is a note; it goes below its row when it does not fit beside it."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
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
    indent = " " * NOTE_INDENT
    return textwrap.wrap(
        text, room, initial_indent=indent, subsequent_indent=indent, max_lines=NOTE_LINES, placeholder=" …"
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrowed(table: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool], room: int) -> list[int]:
    """Take from the widest column that can be broken, until the line fits or none can give more."""
    found = list(widths)
    least = [
        width if number else min(width, max(len(title), NARROWEST, *map(_unbroken, cells)))
        for width, number, (title, *cells) in zip(widths, right, zip(*table, strict=True), strict=True)
    ]
    while _total(found) > room:
        spare = [column for column in range(len(found)) if found[column] > least[column]]
        if not spare:
            break
        found[max(spare, key=lambda column: found[column])] -= 1
    return found


def _unbroken(cell: str) -> int:
    return min(UNBROKEN, max(map(len, _CHUNK.findall(cell)), default=0))


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    cells = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        yield _GAP.join(
            part.rjust(width) if number_ else part.ljust(width)
            for part, width, number_ in zip(parts, widths, right, strict=True)
        ).rstrip()


def _broken(cell: str, width: int) -> list[str]:
    """Break a cell: at a space if there is one, else after a mark, else where it has to be."""
    found = []
    while len(cell) > width:
        at = cell.rfind(" ", 1, width + 1)
        if at < 0:
            at = max(cell.rfind(mark, 0, width) for mark in _BREAKS) + 1 or width
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
