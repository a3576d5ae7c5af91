"""How values are written on pages: text, numbers, durations and times."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from qworker.durations import format_duration
from qworker.filters.model import quoted
from qworkerd.log.redaction import mask_and_shorten, mask_json
from qworkerd.log.visible import visible
from qworkerd.web import texts
from qworkerd.web.plain import plain

#: Maximum number of characters of a value in a table, and on the page of a single thing.
SHORT, LONG = 200, 100_000
#: Maximum number of parts of a JSON value on a page.
MAX_PARTS = 4_000
#: What is written for nothing.
NOTHING = "\N{EN DASH}"
_THOUSAND = 1_000
_UNITS = ("", "k", "M", "G", "T")
_BINARY = 1_024
#: Where a long name may be broken.
_PARTS = re.compile(r"(?<=[._:])(?=\w)")


def text(value: object, longest: int = SHORT) -> str:
    """Return a value as one line: passwords masked, invisible characters escaped, and cut if it is too long."""
    if value is None or value == "":
        return NOTHING
    if not isinstance(value, str):
        value = json.dumps(mask_json(plain(value)), ensure_ascii=False)
    found = visible(" ".join(mask_and_shorten(value, max(4 * longest, _THOUSAND)).split()))
    return found if len(found) <= longest else f"{found[: longest - 1]}…"


def breakable(value: str) -> Markup:
    """Let a line break after the dots, underscores and colons of a long name, rather than anywhere."""
    words = re.split(r"(\S{21,})", value)
    return Markup().join(Markup("<wbr>").join(_PARTS.split(word)) if at % 2 else word for at, word in enumerate(words))


def prose(value: str) -> Markup:
    """Show what a message has in backticks, such as a command, as code."""
    parts = re.split(r"`([^`]+)`", value)
    return Markup().join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def block(value: object, longest: int = LONG) -> str:
    """Return a text with its lines, or JSON with indentation."""
    if isinstance(value, str):
        return visible(mask_and_shorten(value, longest))
    beginning, left = _beginning(value, [MAX_PARTS, longest])
    found = json.dumps(mask_json(plain(beginning)), ensure_ascii=False, indent=2)
    return visible(mask_and_shorten(found, longest)) + ("" if min(left) > 0 else texts.quantities.CUT)


def _beginning(value: object, left: list[int]) -> tuple[object, list[int]]:
    """Return a value without what exceeds the number of parts and of characters that are left.

    Masking and encoding a large value would take longer than everything else on a page.
    """
    left[0] -= 1
    if isinstance(value, str):
        cut = value[: max(left[1], 0)]
        left[1] -= len(value)
        return cut, left
    if isinstance(value, Mapping):
        parts = {}
        for name, part in value.items():
            if min(left) <= 0:
                break
            left[1] -= len(str(name))
            parts[name] = _beginning(part, left)[0]
        return parts, left
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            if min(left) <= 0:
                break
            items.append(_beginning(item, left)[0])
        return items, left
    return value, left


def count(value: float | None) -> str:
    """Return a number in full, with separators."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """Return a number in at most five characters: 999, 1.2k, 35k, 1.2M."""
    if value is None:
        return NOTHING
    size, unit = abs(float(value)), 0
    while size >= _THOUSAND - 0.5 and unit < len(_UNITS) - 1:
        size, unit = size / _THOUSAND, unit + 1
    digits = 1 if size < 10 and (unit or size != int(size)) else 0  # noqa: PLR2004
    number = f"{size:.{digits}f}".removesuffix(".0")
    return f"{'-' * (value < 0)}{number}{_UNITS[unit]}"


def rate(value: float | None) -> str:
    """Return a rate in its most readable unit: 12/s, 3.4/min, 5/h."""
    if value is None:
        return NOTHING
    for unit, seconds in texts.quantities.RATES:
        if value * seconds >= 1 or seconds == texts.quantities.RATES[-1][1]:
            return f"{short_count(round(value * seconds, 1))}/{unit}"
    return NOTHING


def percent(part: float | None) -> str:
    """Return a part of one in percent."""
    return NOTHING if part is None else f"{part:.0%}" if part in {0.0, 1.0} else f"{part:.1%}"


def size(value: float | None) -> str:
    """Return a number of bytes with its unit."""
    if value is None:
        return NOTHING
    found, unit = float(value), 0
    while found >= _BINARY and unit < len(_UNITS) - 1:
        found, unit = found / _BINARY, unit + 1
    return f"{found:.0f} {texts.quantities.BYTES[unit]}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    return NOTHING if seconds is None else format_duration(max(seconds, 0.0))


def utc(at: datetime | None) -> str:
    """Return a time in UTC to the second; the script of the page shows it as the user prefers."""
    if at is None:
        return NOTHING
    if at.year in {1, 9999}:
        return texts.quantities.NEVER if at.year == 1 else texts.quantities.FOREVER
    return at.strftime(texts.quantities.UTC)


def since(at: datetime) -> str:
    """Return since when something goes on, or when it is due; the script of the page says for how long."""
    return (texts.frame.DUE if at > datetime.now(UTC) else texts.frame.SINCE).format(time=utc(at))


def fill(text: str, **parts: object) -> Markup:
    """Put elements into a text of ours with {places}; everything but `Markup` is escaped, the text as well."""
    return Markup(escape(text)).format(**parts)  # noqa: S704 - escaped


#: By the names that templates use.
FILTERS: dict[str, Any] = {
    "text": text, "breakable": breakable, "prose": prose, "block": block, "count": count, "short_count": short_count,
    "rate": rate, "percent": percent,
    "size": size, "duration": duration, "utc": utc, "since": since, "quoted": quoted, "fill": fill,
}  # fmt: skip
