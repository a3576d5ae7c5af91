"""What commands print: aligned columns for people, JSON for programs."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from qworker.job import Job
from qworkerd.redaction import mask


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in aligned columns, numbers to the right; on a terminal no line is longer than it."""
    texts = [[text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]
    numeric = [all(isinstance(row[column], (int, float)) for row in rows) and bool(rows) for column in range(len(head))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for row in [list(head), *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        click.echo(line if len(line) <= room else line[: room - 1] + "…")


def text(value: object) -> str:
    """Return a cell's text: one line, times in the local zone, "-" for nothing."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return " ".join(str(value).split())


def as_json(value: object) -> None:
    """Print a value as JSON: moments in UTC, no passwords."""
    click.echo(mask(json.dumps(value, default=_plain, indent=2, ensure_ascii=False)))


def record(job: Job) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    hidden = {"duplicate"}
    return {
        field.name: getattr(job, field.name)
        for field in dataclasses.fields(job)
        if not field.name.startswith("_") and field.name not in hidden
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
