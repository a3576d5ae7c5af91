"""Values as JSON and CSV: what pages show, for programs and spreadsheets."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from qworkerd.log.redaction import mask, mask_json
from qworkerd.log.visible import visible, visible_json

#: A spreadsheet evaluates cells that begin with these characters.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain(value: object) -> object:
    """Return a value of types that JSON has. Private fields are left out; an object may define `as_dict`."""
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    if hasattr(value, "as_dict"):
        return plain(value.as_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value) if not field.name.startswith("_"))
        return {name: plain(getattr(value, name)) for name in names}
    return value.value if isinstance(value, Enum) else value.isoformat() if isinstance(value, datetime) else str(value)


def as_json(value: object) -> str:
    """Return JSON without passwords; integers are exact, and characters that are not visible are escaped."""
    return visible_json(json.dumps(mask_json(plain(value)), ensure_ascii=False, allow_nan=False)) + "\n"


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table for spreadsheets, in which no cell is evaluated as a formula."""
    return csv_rows([head, *rows])


def csv_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows of such a table."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in rows:
        writer.writerow([cell(value) for value in row])
    return out.getvalue()


def cell(value: object) -> object:
    """Return the cell of a value: numbers as they are, everything else as text that is not a formula."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    found = plain(value)
    text = "" if found is None else found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    text = visible(mask(text))
    return f"'{text}" if text.startswith(FORMULA) else text
