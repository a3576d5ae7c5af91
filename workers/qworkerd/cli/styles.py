"""Colors of tables in a terminal, if rich is installed: what needs a look stands out, and what says nothing recedes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from qworkerd.cli.layout import Line
from qworkerd.log.colors import terminal_has_colors

if TYPE_CHECKING:
    from rich.console import Console

#: Styles of heads, and of notes and of what says nothing.
HEAD, DIM = "bold", "dim"
#: Styles of the columns that have one of a few words, by the word.
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "STATE": {
        "blocked": "yellow", "running": "cyan", "completed": "green", "failed": "red", "cancelled": DIM,
        "open": "red", "muted": DIM, "resolved": "green", "stopped": "yellow",
    },
    "SERVED BY": {"no live node": "red"},
}  # fmt: skip
#: Styles of columns that should be empty, or zero.
NOT_EMPTY: Final = {"FAILED": "red", "PROBLEM": "red", "PAUSED": "yellow", "LAST DEATH": "red"}


class Styles:
    """Prints the lines of one table with colors."""

    def __init__(self, console: "Console", head: Sequence[str], cells: Sequence[Sequence[str]], *, note: bool) -> None:
        self._console = console
        self._head = head
        self._cells = cells
        self._note = len(head) - 1 if note else None

    def print(self, line: Line) -> None:
        """Print a line. Nothing in it is interpreted: it is a text and not markup, and is not wrapped."""
        from rich.text import Text

        text = Text(line)
        for start, end, row, column in line.spans:
            text.stylize(HEAD if row is None else self._style(column, self._cells[row][column]), start, end)
        self._console.print(text, soft_wrap=True)

    def _style(self, column: int, cell: str) -> str:
        title = self._head[column]
        if cell in {"-", "0"}:
            return DIM
        if title in NOT_EMPTY:
            return NOT_EMPTY[title]
        if column == self._note:
            return DIM
        return WORDS.get(title, {}).get(cell, "")


def styles(stream: TextIO, head: Sequence[str], cells: Sequence[Sequence[str]], *, note: bool) -> Styles | None:
    """Return what prints a table with colors; None if the stream is not a terminal with colors, or without rich."""
    if not (stream.isatty() and terminal_has_colors()):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Styles(Console(file=stream, markup=False, emoji=False, highlight=False), head, cells, note=note)
