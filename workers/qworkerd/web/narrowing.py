"""Narrow a list by a part of the names in it: for lists that are small as a rule, and may have thousands of lines."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

#: Lines that a page shows; JSON and CSV have all.
MAX_SHOWN = 500
#: From how many lines on a page offers to narrow them.
MANY = 12


@dataclass(frozen=True, slots=True)
class Narrowed(Generic[T]):
    """The lines whose name contains a text, whatever its case."""

    lines: list[T]
    #: The text; empty for all lines.
    find: str
    #: The number of lines before they were narrowed.
    total: int
    #: How many of them a page shows.
    most: int = MAX_SHOWN

    @property
    def shown(self) -> list[T]:
        """The lines that the page shows."""
        return self.lines[: self.most]

    @property
    def hidden(self) -> int:
        """The number of lines that the page does not show, although their names match."""
        return max(0, len(self.lines) - self.most)

    @property
    def offered(self) -> bool:
        """Whether there are enough lines to narrow them."""
        return bool(self.find) or self.total > MANY

    def as_dict(self) -> list[T]:
        """Return what JSON has."""
        return self.lines


def narrow(lines: Iterable[T], name: Callable[[T], str], find: str, most: int = MAX_SHOWN) -> Narrowed[T]:
    """Return the lines whose name contains a text."""
    known, wanted = list(lines), find.casefold()
    found = [line for line in known if wanted in name(line).casefold()] if wanted else known
    return Narrowed(found, find, len(known), most)
