"""Prints lines and, below them, a progress line: overwritten on a terminal, repeated at intervals elsewhere."""

import os
import shutil
from time import monotonic
from typing import TextIO

import click

#: Interval of the progress lines if there is no terminal (seconds).
PROGRESS_INTERVAL = 2.0
_WIDTH = 24
_CLEAR = "\r\x1b[K"


class Screen:
    """Writes to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = ""
        self._at = monotonic()
        self._full, self._empty = self._blocks()

    def echo(self, text: str = "") -> None:
        """Print a line."""
        if self._shown:
            click.echo(_CLEAR, file=self._stream, nl=False)
        click.echo(text, file=self._stream)
        if self._shown:
            click.echo(self._shown, file=self._stream, nl=False)

    def show(self, fraction: float, text: str) -> None:
        """Print the progress: a fraction from 0 to 1, and a text."""
        if not self._live:
            if monotonic() - self._at >= PROGRESS_INTERVAL:
                self._at = monotonic()
                self.echo(text)
            return
        full = int(_WIDTH * fraction)
        bar = click.style(self._full * full, fg="green") + click.style(self._empty * (_WIDTH - full), dim=True)
        room = shutil.get_terminal_size().columns - 1
        # A line that wraps cannot be cleared. On a narrow terminal the bar is left out first, then the end of the text.
        self._shown = f"{text}  {bar}" if len(text) + 2 + _WIDTH <= room else text[:room]
        click.echo(f"{_CLEAR}{self._shown}", file=self._stream, nl=False)

    def clear(self) -> None:
        """Remove the progress line."""
        if self._shown:
            click.echo(_CLEAR, file=self._stream, nl=False)
            self._shown = ""

    def _blocks(self) -> tuple[str, str]:
        try:
            "━".encode(self._stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return "#", "."
        return "━", "━"
