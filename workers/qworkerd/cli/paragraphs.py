"""Prints sentences on lines that fit the terminal; commands to copy are not wrapped."""

import shutil
import sys
from textwrap import wrap

import click

from qworkerd.cli.tables import safe_echo

#: The minimum width of lines.
MIN_WIDTH = 40


def room(otherwise: int | None = None) -> int | None:
    """Return the width of the terminal; `otherwise` if the output is not one. None: lines are not wrapped."""
    return max(MIN_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else otherwise


def paragraph(text: str, width: int | None, *, label: str = "", color: str | None = None, indent: str = "") -> None:
    """Print a text behind a label; further lines, and the first one without a label, are indented."""
    line = " ".join(text.split())
    gap = len(indent) - len(label) if len(indent) > len(label) else 2
    start = click.style(label, fg=color) + " " * gap if label else indent
    if width is None:
        safe_echo(line, prefix=start)
        return
    first, *rest = wrap(line, width - (len(label) + gap if label else len(indent))) or [""]
    safe_echo(first, prefix=start)
    for part in wrap(" ".join(rest), width - len(indent)):
        safe_echo(part, prefix=indent)
