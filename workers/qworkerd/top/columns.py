"""Columns of a table: what they show of a row, how they are sorted, and which of them fit into a width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from qworkerd.log.width import width

R = TypeVar("R")

#: Blanks between two columns.
GAP = 2
#: The width down to which texts are shrunk if nothing else can be left out.
LEAST = 4
#: Names of styles, which the theme defines.
PLAIN, DIM, GOOD, WARNING, BAD = "", "dim", "good", "warning", "bad"


def _plain(_row: Any) -> str:
    return PLAIN


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of rows of one type."""

    title: str
    #: The text of a row at a time.
    text: Callable[[R, datetime], str]
    #: The value by which rows are sorted; None if they cannot be.
    key: Callable[[R], Any] | None = None
    #: Whether it is aligned to the right.
    right: bool = False
    #: Whether the largest value comes first when rows are sorted by it.
    descending: bool = False
    #: The width down to which it is shrunk before others are left out; 0: it is never shrunk.
    least: int = 0
    #: Columns with the highest rank are left out first if the width does not suffice; rank 0 always stays.
    rank: int = 0
    style: Callable[[R], str] = _plain


def widths(columns: Sequence[Column[Any]], natural: Sequence[int], room: int) -> list[int]:
    """Return the width of each column, 0 for those that are left out, so that a line does not exceed `room`.

    First the widest texts are shrunk, then columns are left out, and at last the texts that remain are shrunk further.
    """
    found = list(natural)
    while (excess := _excess(found, room)) > 0:
        shrunk = _shrunk(columns, found, excess)
        if _excess(shrunk, room) <= 0:
            return shrunk
        shown = [index for index, size in enumerate(found) if size]
        last = max(shown, key=lambda index: (columns[index].rank, index))
        if columns[last].rank == 0:
            return _shrunk(columns, shrunk, _excess(shrunk, room), least=LEAST)
        found[last] = 0
    return found


def natural_widths(columns: Sequence[Column[R]], texts: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of the title or of the longest text of each column."""
    return [
        max(width(column.title), *(width(row[index]) for row in texts)) if texts else width(column.title)
        for index, column in enumerate(columns)
    ]


def _excess(sizes: Sequence[int], room: int) -> int:
    shown = [size for size in sizes if size]
    return sum(shown) + GAP * (len(shown) - 1) - room


def _shrunk(columns: Sequence[Column[Any]], sizes: Sequence[int], excess: int, least: int | None = None) -> list[int]:
    """Narrow the widest of the columns that can be narrowed, again and again."""
    found = list(sizes)
    for _ in range(excess):
        candidates = [
            index
            for index, column in enumerate(columns)
            if column.least and found[index] > (column.least if least is None else least)
        ]
        if not candidates:
            break
        found[max(candidates, key=lambda index: found[index])] -= 1
    return found
