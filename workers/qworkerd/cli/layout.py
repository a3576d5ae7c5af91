"""Lays out tables for a terminal: cells that are too wide are wrapped, and nothing is omitted."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self
from unicodedata import combining, east_asian_width

#: Minimum width of a column, and the length up to which a word is not split while another column can be made narrower.
MIN_WIDTH, MAX_UNBROKEN = 10, 16
#: Maximum number of lines of a note below its row, and its indentation.
NOTE_LINES, NOTE_INDENT = 2, 4
_GAP = "  "
#: Cells are wrapped at spaces, and after these characters.
_BREAKS = ".,/_-"
_CHUNK = re.compile(rf"[^ {re.escape(_BREAKS)}]+[{re.escape(_BREAKS)}]*")


class Span(NamedTuple):
    """A part of a line that shows a cell, or a part of one."""

    #: Its first character, and the one behind it.
    start: int
    end: int
    #: The index of its row; None for the head.
    row: int | None
    column: int


class Line(str):
    """A line of a table, which knows where its cells are."""

    __slots__ = ("spans",)

    spans: tuple[Span, ...]

    def __new__(cls, text: str = "", *spans: Span) -> Self:
        """Make a line without the spaces at its end."""
        line = super().__new__(cls, text.rstrip())
        line.spans = tuple(span for span in spans if span.start < len(line))
        return line


def lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None
) -> Iterator[Line]:
    """Yield the lines of a table in aligned columns.

    right: for each column, whether it is aligned to the right. room: the maximum width of a line, or None. If the table
    is wider than that, cells are wrapped. If that is not sufficient, each row becomes a block of lines.
    """
    widths = [max(_width(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if room is not None:
        widths = _shrink((head, *rows), widths, right, room)
        if _total(widths) > room:
            yield from _blocks(head, rows, room)
            return
    yield from _row(head, None, widths, right)
    for index, row in enumerate(rows):
        yield from _row(row, index, widths, right)


def lines_with_note(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], room: int | None
) -> Iterator[Line]:
    """Yield the lines of a table whose last column is a note, which is placed below its row if the line is too long."""
    widths = [max(_width(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if room is None or _total(widths) <= room:
        yield from lines(head, rows, right, room)
        return
    widths = _shrink([head[:-1], *(row[:-1] for row in rows)], widths[:-1], right[:-1], room)
    if _total(widths) > room:
        yield from lines(head, rows, right, room)
        return
    yield from _row(head[:-1], None, widths, right[:-1])
    for index, row in enumerate(rows):
        yield from _row(row[:-1], index, widths, right[:-1])
        if row[-1] != "-":
            for line in _note(row[-1], room):
                yield Line(line, Span(NOTE_INDENT, len(line), index, len(head) - 1))


def _note(text: str, room: int) -> list[str]:
    room = max(MIN_WIDTH, room - NOTE_INDENT)
    shown = _wrap(text, room)
    if len(shown) > NOTE_LINES:
        shown = [*shown[: NOTE_LINES - 1], f"{_wrap(shown[NOTE_LINES - 1], room - 2)[0]} …"]
    return [" " * NOTE_INDENT + line.rstrip() for line in shown]


def _width(text: str) -> int:
    """Return the number of terminal columns that a string occupies."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1


def _fit(text: str, width: int) -> int:
    """Return how many characters of a string fit into a width; at least one."""
    if text.isascii():
        return max(1, width)
    used, count = 0, 0
    for character in text:
        used += _columns(character)
        if used > width:
            break
        count += 1
    return max(1, count)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _shrink(table: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool], room: int) -> list[int]:
    """Reduce the width of the widest column repeatedly, until the line fits or all columns have their minimum width."""
    found = list(widths)
    least = [
        width if number else min(width, max(_width(title), MIN_WIDTH, *map(_min_width, cells)))
        for width, number, (title, *cells) in zip(widths, right, zip(*table, strict=True), strict=True)
    ]
    while _total(found) > room:
        reducible = [column for column in range(len(found)) if found[column] > least[column]]
        if not reducible:
            break
        found[max(reducible, key=lambda column: found[column])] -= 1
    return found


def _min_width(cell: str) -> int:
    return min(MAX_UNBROKEN, max(map(_width, _CHUNK.findall(cell)), default=0))


def _row(row: Sequence[str], index: int | None, widths: Sequence[int], right: Sequence[bool]) -> Iterator[Line]:
    cells = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        line, spans = "", []
        for column, (cell, width, to_the_right) in enumerate(zip(cells, widths, right, strict=True)):
            part = cell[number] if number < len(cell) else ""
            space = " " * (width - _width(part))
            line += (_GAP if column else "") + (space if to_the_right else "")
            spans.append(Span(len(line), len(line) + len(part), index, column))
            line += part + ("" if to_the_right else space)
        yield Line(line, *spans)


def _wrap(cell: str, width: int) -> list[str]:
    """Wrap a cell at spaces, or after one of the characters `_BREAKS`, or at the width if it contains neither."""
    found = []
    while _width(cell) > width:
        fitting = _fit(cell, width)
        at = cell.rfind(" ", 1, fitting + 1)
        if at < 0:
            at = max(cell.rfind(mark, 0, fitting) for mark in _BREAKS) + 1 or fitting
        found.append(cell[:at].rstrip())
        cell = cell[at:].lstrip()
    return [*found, cell]


def _blocks(head: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> Iterator[Line]:
    label = max(map(len, head))
    start = label + len(_GAP)
    for index, row in enumerate(rows):
        if index:
            yield Line()
        for column, (title, cell) in enumerate(zip(head, row, strict=True)):
            for number, part in enumerate(_wrap(cell, max(MIN_WIDTH, room - start))):
                spans = [Span(start, start + len(part), index, column)]
                if number == 0:
                    spans.append(Span(0, len(title), None, column))
                yield Line(f"{title if number == 0 else '':<{start}}{part}", *spans)
