"""Facts: what is known of a row, as names and values; and the lines that show them."""

import json
from collections.abc import Iterable
from datetime import datetime
from textwrap import wrap

from qworker.decoding import Unreadable
from qworkerd.log.redaction import mask, mask_json
from qworkerd.log.visible import visible
from qworkerd.log.width import fitting, width
from qworkerd.top.cells import duration, fit, harmless
from qworkerd.top.columns import DIM, PLAIN
from qworkerd.top.overview import Line

#: Width of the names of facts.
LABEL = 14
#: Maximum number of characters of one value or line.
MAX_TEXT = 20_000

#: A fact: its name, its value, and the style of the value.
Fact = tuple[str, str, str]


def lines(facts: Iterable[Fact], room: int) -> list[Line]:
    """Return facts as lines that are not wider than `room`; a fact without a name is text of the whole width."""
    found: list[Line] = []
    for name, value, style in facts:
        label = LABEL if name else 0
        parts = _wrapped(value, max(8, room - label))
        for number_, part in enumerate(parts):
            head = [(fit(name if not number_ else "", label), DIM)] if label else []
            found.append([*head, (part, style)])
    return found


def _wrapped(text: str, room: int) -> list[str]:
    """Break a line at the width, at blanks if possible; the indentation is kept."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
    if width(text) <= room:
        return [text]
    indent = text[: len(text) - len(text.lstrip())][: room // 2]
    if text.isascii() and text.strip():
        return wrap(text.strip(), room, initial_indent=indent, subsequent_indent=indent)
    found = []
    while text:
        count = max(1, fitting(text, room))
        found.append(text[:count])
        text = text[count:]
    return found


def text_of(text: str, style: str = PLAIN) -> Iterable[Fact]:
    """Return a text of several lines as facts without names."""
    yield ("", "", PLAIN)
    for line in mask(text).expandtabs().splitlines():
        yield ("", visible(line), style)


def json_of(value: object) -> str:
    """Return a value of a column of JSON as text."""
    if isinstance(value, Unreadable):
        return harmless(value)
    return visible(json.dumps(mask_json(value), ensure_ascii=False, default=str))


def shown(value: object) -> str:
    """Return a value of a job as text."""
    if isinstance(value, datetime):
        return time_of(value)
    if isinstance(value, float):
        return duration(value)
    return harmless(", ".join(map(str, value)) if isinstance(value, tuple) else value)


def time_of(at: datetime | None) -> str:
    """Return a time with the offset of its zone."""
    if at is None:
        return "-"
    try:
        return f"{at.astimezone():%Y-%m-%d %H:%M:%S%z}"
    except OverflowError:  # the first and the last day of Python's range represent infinity
        return "infinity" if at.year > 1 else "-infinity"
