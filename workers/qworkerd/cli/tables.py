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
from qworkerd.cli.layout import lines, noted
from qworkerd.redaction import mask


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, note: bool = False) -> None:
    """Print rows in aligned columns, numbers to the right; a terminal's lines are not longer than it is wide.

    note: the last column is one, which goes below its row if there is no room beside it.
    """
    texts = [[text(cell) for cell in row] for row in rows]
    numbers = [all(isinstance(row[column], (int, float)) for row in rows) and bool(rows) for column in range(len(head))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in (noted if note else lines)(head, texts, numbers, room):
        click.echo(line)


def text(value: object) -> str:
    """Return a cell's text: one line, times in the local zone and with its offset, "-" for nothing."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, datetime):
        return moment(value.astimezone())
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return " ".join(str(value).split())


def moment(value: datetime) -> str:
    """Return a time with the offset of its zone, as PostgreSQL writes it: 2026-01-31 09:00:00+01."""
    hours, minutes = value.strftime("%z")[:3], value.strftime("%z")[3:5]
    return value.strftime("%Y-%m-%d %H:%M:%S") + (hours if minutes == "00" else f"{hours}:{minutes}")


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
