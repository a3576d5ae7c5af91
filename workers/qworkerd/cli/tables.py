"""What commands print: aligned columns for people, JSON for programs."""

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
from qworkerd.cli.layout import lines, noted
from qworkerd.log.redaction import clip, keep, mask
from qworkerd.log.visible import visible, visible_json

#: A cell is cut after this many characters: one long value must not pad every row.
CELL: Final = 1_000
#: Levels of JSON that get lines of their own; below, an indent would cost more than it shows.
INDENTED: Final = 4


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, note: bool = False, empty: str = "") -> None:
    """Print rows in aligned columns, numbers to the right; a terminal's lines are not longer than it is wide.

    note: the last column is one, which goes below its row if there is no room beside it.
    empty: what to say on standard error if there are no rows.
    """
    texts = [[text(cell) for cell in row] for row in rows]
    numbers = [all(isinstance(row[column], (int, float)) for row in rows) and bool(rows) for column in range(len(head))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in (noted if note else lines)(head, texts, numbers, room):
        say(line)
    if empty and not rows:
        say(empty, err=True)


def say(line: str = "", *, prefix: str = "", err: bool = False) -> None:
    """Print text that may come from anybody: without passwords, and with nothing in it that a terminal obeys.

    The prefix is ours, and printed as it is.
    """
    encoding = _encoding(sys.stderr if err else sys.stdout)
    click.echo(prefix + visible(mask(line)).encode(encoding, "backslashreplace").decode(encoding), err=err)


def text(value: object) -> str:
    """Return a cell's text: one line, times in the local zone and with its offset, "-" for nothing."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, datetime):
        return _local(value)
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (tuple, list)):
        value = ",".join(map(str, value))
    return _cell(str(value))


def moment(value: datetime) -> str:
    """Return a time with the offset of its zone, as PostgreSQL writes it: 2026-01-31 09:00:00+01."""
    hours, minutes = value.strftime("%z")[:3], value.strftime("%z")[3:5]
    return value.strftime("%Y-%m-%d %H:%M:%S") + (hours if minutes == "00" else f"{hours}:{minutes}")


def as_json(value: object) -> None:
    """Print a value as JSON: moments in UTC, no passwords."""
    click.echo(visible_json(_layout(keep(_plain(value))), ascii_only=_encoding(sys.stdout) != "utf-8"))


def record(job: Job) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    hidden = {"duplicate"}
    return {
        field.name: getattr(job, field.name)
        for field in dataclasses.fields(job)
        if not field.name.startswith("_") and field.name not in hidden
    }


def _encoding(stream: Any) -> str:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name


def _cell(value: str) -> str:
    # Masked before it is cut, as half of a password would not be recognised; and cut before the spaces are counted.
    line = visible(" ".join(clip(value, 4 * CELL).split()))
    return line if len(line) <= CELL else f"{line[: CELL - 1]}…"


def _local(at: datetime) -> str:
    try:
        return moment(at.astimezone())
    except OverflowError:  # the first or the last day that Python knows stands for infinity
        return "infinity" if at.year > 1 else "-infinity"


def _layout(value: object, depth: int = 0) -> str:
    """Return JSON with the outer levels indented."""
    pad, end = "  " * (depth + 1), "  " * depth
    if depth < INDENTED and value and isinstance(value, dict):
        parts = (f"{pad}{_compact(name)}: {_layout(part, depth + 1)}" for name, part in value.items())
        return "{\n" + ",\n".join(parts) + f"\n{end}}}"
    if depth < INDENTED and value and isinstance(value, list):
        return "[\n" + ",\n".join(f"{pad}{_layout(part, depth + 1)}" for part in value) + f"\n{end}]"
    return _compact(value)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    """Return a value made of what JSON knows."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
