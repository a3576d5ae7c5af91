"""Prints the results of commands: tables for people, JSON for programs."""

import codecs
import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from qworker.job import Job
from qworkerd.cli.layout import lines, lines_with_note
from qworkerd.cli.styles import styles
from qworkerd.log.redaction import mask, mask_and_shorten, mask_json
from qworkerd.log.visible import visible, visible_json

#: Maximum length of a cell in characters: one long value must not widen every row.
MAX_CELL: Final = 1_000
#: Levels of JSON that are printed on separate, indented lines; deeper levels are printed on one line.
INDENTED_LEVELS: Final = 4


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], *, note: bool = False, empty: str = "", err: bool = False
) -> None:
    """Print rows in aligned columns, with numbers aligned to the right; on a terminal, lines do not exceed its width.

    If rich is installed, and the terminal has colors, states and what needs a look have a color.

    note: the last column is a note, which is placed below its row if the line is too long. empty: the message that is
    printed to standard error if there are no rows. err: print the table there.
    """
    texts = [[text(cell) for cell in row] for row in rows]
    numbers = [all(isinstance(row[column], (int, float)) for row in rows) and bool(rows) for column in range(len(head))]
    stream = sys.stderr if err else sys.stdout
    room = shutil.get_terminal_size().columns if stream.isatty() else None
    styled = styles(stream, head, texts, note=note) if rows else None
    for line in (lines_with_note if note else lines)(head, texts, numbers, room):
        if styled is None or _printable(line, stream) != line:
            safe_echo(line, err=err)
        else:
            styled.print(line)
    if empty and not rows:
        safe_echo(empty, err=True)


def safe_echo(line: str = "", *, prefix: str = "", err: bool = False) -> None:
    """Print a string from an untrusted source: passwords are masked, and characters that a terminal interprets escaped.

    The prefix is printed unchanged.
    """
    click.echo(prefix + _printable(line, sys.stderr if err else sys.stdout), err=err)


def text(value: object) -> str:
    """Return the string for a cell: one line, times in the local time zone with its offset, "-" for None or nothing."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, datetime):
        return _local(value)
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (tuple, list)):
        value = ",".join(map(str, value))
    return _cell(str(value))


def timestamp(value: datetime) -> str:
    """Return a time with the offset of its zone, as PostgreSQL writes it: 2026-01-31 09:00:00+01."""
    hours, minutes = value.strftime("%z")[:3], value.strftime("%z")[3:5]
    return value.strftime("%Y-%m-%d %H:%M:%S") + (hours if minutes == "00" else f"{hours}:{minutes}")


def as_json(value: object) -> None:
    """Print a value as JSON, with times in UTC and without passwords."""
    click.echo(visible_json(_layout(mask_json(_plain(value))), ascii_only=_encoding(sys.stdout) != "utf-8"))


def as_json_line(value: object) -> None:
    """Print a value as JSON on one line, for output that goes on."""
    line = _compact(mask_json(_plain(value)))
    click.echo(visible_json(line, ascii_only=_encoding(sys.stdout) != "utf-8"))


def job_as_dict(job: Job) -> dict[str, Any]:
    """Return the public fields of a job for JSON."""
    hidden = {"duplicate"}
    return {
        field.name: getattr(job, field.name)
        for field in dataclasses.fields(job)
        if not field.name.startswith("_") and field.name not in hidden
    }


def _printable(line: str, stream: Any) -> str:
    encoding = _encoding(stream)
    return visible(mask(line)).encode(encoding, "backslashreplace").decode(encoding)


def _encoding(stream: Any) -> str:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name


def _cell(value: str) -> str:
    # Masking comes before truncation, because a truncated password would not be recognized.
    line = visible(" ".join(mask_and_shorten(value, 4 * MAX_CELL).split()))
    return line if len(line) <= MAX_CELL else f"{line[: MAX_CELL - 1]}…"


def _local(at: datetime) -> str:
    try:
        return timestamp(at.astimezone())
    except OverflowError:  # the first and the last day of Python's range represent infinity
        return "infinity" if at.year > 1 else "-infinity"


def _layout(value: object, depth: int = 0) -> str:
    """Return JSON with the outer levels indented."""
    pad, end = "  " * (depth + 1), "  " * depth
    if depth < INDENTED_LEVELS and value and isinstance(value, dict):
        parts = (f"{pad}{_compact(name)}: {_layout(part, depth + 1)}" for name, part in value.items())
        return "{\n" + ",\n".join(parts) + f"\n{end}}}"
    if depth < INDENTED_LEVELS and value and isinstance(value, list):
        return "[\n" + ",\n".join(f"{pad}{_layout(part, depth + 1)}" for part in value) + f"\n{end}]"
    return _compact(value)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    """Return a value converted to types that JSON supports."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
