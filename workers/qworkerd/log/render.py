"""Renders log events: as JSON for programs, in aligned columns for a terminal."""

import json
import os
import sys
from datetime import datetime
from functools import cache
from math import isfinite
from textwrap import indent
from typing import Final

from structlog.dev import ConsoleRenderer, plain_traceback

from qworkerd.log.colors import terminal_has_colors
from qworkerd.log.tracebacks import format_error
from qworkerd.log.visible import visible, visible_json

#: The keys of an event that are kept if it has too many.
_ESSENTIAL: Final = ("timestamp", "level", "event", "job", "pid")
#: The indent of lines that do not begin an event.
_INDENT: Final = "    "
#: Space for the note that replaces an omitted part (bytes).
_NOTE: Final = 64


def as_json(event: dict[str, object], room: int) -> bytes:
    """Render an event as one line of JSON of at most `room` bytes; the middle of its longest values is omitted."""
    line = _dump(event)
    for _ in range(16):
        if len(line) < room:
            return line + b"\n"
        event = _shorten(event, len(line) - room + 1)
        line = _dump(event)
    keep: dict[str, object] = {key: event[key] for key in _ESSENTIAL if key in event} | {"cut": True}
    excess = len(_dump(keep)) - room + 1
    return _dump(_shorten(keep, excess) if excess > 0 else keep)[: room - 1] + b"\n"


def as_text(event: dict[str, object], room: int) -> bytes:
    """Render an event for a person at a terminal: local time, aligned, tracebacks below.

    Only the first line of an event begins at the left edge; its other lines and its traceback are indented.
    """
    at = event.get("timestamp")
    if isinstance(at, str):
        event["timestamp"] = datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    shown = {visible(key).replace("\n", "\\n"): _for_terminal(key, value) for key, value in event.items()}
    line = _renderer(_colourful())(None, "", shown)
    return _cut_middle(line.encode("utf-8", "backslashreplace"), room - 1) + b"\n"


def traceback_of(given: object) -> str:
    """Return the traceback for a value of exc_info: true, an exception, or a triple; "" if there is none."""
    if isinstance(given, BaseException):
        return format_error(given).rstrip()
    if isinstance(given, tuple):
        return traceback_of(given[1]) if len(given) > 1 else ""
    error = sys.exc_info()[1]
    return traceback_of(error) if given and error else ""


def _dump(value: object) -> bytes:
    try:
        text = _encode(value)
    except ValueError:  # inf and nan are not valid JSON
        text = _encode(_finite(value))
    # Some programs treat U+0085 and U+2028 as line ends, and the file may be shown on a terminal.
    return visible_json(text).encode()


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, default=repr, separators=(", ", ": ")
).encode  # fmt: skip


def _finite(value: object) -> object:
    """Return the value with infinities and NaN replaced by their names, which JSON can represent."""
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def _shorten(event: dict[str, object], excess: int) -> dict[str, object]:
    """Return the event without the middle of its longest value. The end of a traceback is the most useful part."""
    sizes = {key: len(_dump(value)) for key, value in event.items() if key not in ("timestamp", "level")}
    longest = max(sizes, key=lambda key: sizes[key])
    value = event[longest]
    text = value if isinstance(value, str) else _dump(value).decode()
    keep = int(len(text) * max(0.0, 1 - (excess + _NOTE) / sizes[longest]))
    tail = keep - keep // 4
    note = f" … {len(text) - keep} characters omitted … "
    return {**event, longest: text[: keep // 4] + note + (text[-tail:] if tail else "")}


def _cut_middle(line: bytes, room: int) -> bytes:
    if len(line) <= room:
        return line
    note = f" … {len(line) - room} bytes omitted … ".encode()
    head = room // 4
    tail = room - head - len(note) - 8
    return (line[:head].decode("utf-8", "ignore") + note.decode() + line[-tail:].decode("utf-8", "ignore")).encode()


def _for_terminal(key: str, value: object) -> object:
    if key in ("exception", "stack") and isinstance(value, str):
        return indent(visible(value), _INDENT, bool)
    if isinstance(value, str):
        # Other values with line breaks are quoted.
        return visible(value).replace("\n", f"\n{_INDENT}") if key in ("event", "logger", "level") else visible(value)
    return value


def _colourful() -> bool:
    return os.isatty(2) and terminal_has_colors()


@cache
def _renderer(colours: bool) -> ConsoleRenderer:
    # If rich is installed, structlog warns about an already formatted traceback unless this formatter is named.
    return ConsoleRenderer(colors=colours, sort_keys=False, exception_formatter=plain_traceback)
