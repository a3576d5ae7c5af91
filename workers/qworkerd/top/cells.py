"""Texts of cells: short, aligned, and harmless whatever the database holds."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from qworker.durations import format_duration
from qworkerd.log.redaction import mask_and_shorten
from qworkerd.log.visible import visible
from qworkerd.log.width import fitting, width

#: Stands for a value that does not exist.
NONE: Final = "-"
#: Maximum length of a text from the database (characters).
LONGEST: Final = 1_000

_BARS: Final = "▁▂▃▄▅▆▇█"
#: The numbers from which on a unit is used, the unit, and its letter.
_UNITS: Final = ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**4, 10**3, "k"))


def harmless(value: object) -> str:
    """Return one line: passwords masked, and characters that a terminal interprets as escapes."""
    if value is None or value == "":
        return NONE
    return visible(" ".join(mask_and_shorten(str(value), LONGEST).split()))


def number(value: int, *, exact: bool = True) -> str:
    """Format a number in full: 1,204,111; an estimate as ≈1.2M."""
    return f"{value:,}" if exact else f"≈{short(value)}"


def short(value: float) -> str:
    """Format a number in at most five characters: 9,999, 12.3k, 1.2M."""
    for least, unit, letter in _UNITS:
        if value >= least:
            scaled = value / unit
            return f"{scaled:.0f}{letter}" if scaled >= 100 else f"{scaled:.1f}".removesuffix(".0") + letter  # noqa: PLR2004
    return f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Format a number of jobs in a second."""
    if value is None:
        return NONE
    return f"{value:.1f}/s" if value < 100 else f"{short(value)}/s"  # noqa: PLR2004


def duration(seconds: float | None) -> str:
    """Format a duration in its two largest units."""
    return NONE if seconds is None else format_duration(max(0.0, seconds))


def between(since: datetime | None, until: datetime | None) -> str:
    """Format the time from one point in time to another one."""
    if since is None or until is None:
        return NONE
    return duration(max(0.0, (until - since).total_seconds()))


def ago(at: datetime | None, now: datetime) -> str:
    """Format how long ago a time is, in its largest unit: 4s, 3m, 2h, 5d."""
    if at is None:
        return NONE
    seconds = max(0.0, (now - at).total_seconds())
    for unit, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{letter}"
    return f"{int(seconds)}s"


def clock(at: datetime | None, now: datetime) -> str:
    """Format a time in the local zone: without the date on the same day, without the time of day in another year."""
    if at is None:
        return NONE
    try:
        local, today = at.astimezone(), now.astimezone()
    except OverflowError:  # the first and the last day of Python's range represent infinity
        return "infinity" if at.year > 1 else "-infinity"
    if abs(local - today) < timedelta(days=1):
        return f"{local:%H:%M:%S}"
    return f"{local:%b %d %H:%M}" if abs(local - today) < timedelta(days=300) else f"{local:%Y-%m-%d}"


def fit(text: str, room: int, *, right: bool = False) -> str:
    """Return the text in exactly this number of columns of a terminal; a text that is too long ends in "…"."""
    length = width(text)
    if length > room:
        text = text[: fitting(text, room - 1)] + "…"[: max(0, room)]
        length = width(text)
    return " " * (room - length) + text if right else text + " " * (room - length)


def bars(values: Sequence[float], room: int) -> str:
    """Draw numbers as bars of one line, relative to the largest one; 0 is a blank."""
    values = values[-room:]
    highest = max(values, default=0)
    return "".join(_BARS[min(7, int(value * 8 / highest))] if value > 0 else " " for value in values).rjust(room)
