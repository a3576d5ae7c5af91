"""Parse and format durations: 90, 5m, 1h30m, 250ms."""

import re
from math import isfinite, isnan

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a number, or of numbers with units in descending order; raises ValueError."""
    normalized = text.strip().lower()
    try:
        return float(normalized)
    except ValueError:
        pass
    parts = _PART.findall(normalized) if _DURATION.fullmatch(normalized) else []
    scales = [_UNITS[unit] for _, unit in parts]
    if not parts or sorted(set(scales), reverse=True) != scales:
        raise ValueError(f"{text!r} is not a duration: write seconds, or units as in 5m, 1h30m, 250ms")
    return sum(float(number) * scale for (number, _), scale in zip(parts, scales, strict=True))


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units, in the syntax of `parse_duration`: 3m20s, 1h30m, 4.5s, 250ms.

    A time that was edited by hand may be infinite, and so may what has passed since.
    """
    if not isfinite(seconds):
        return "an unknown time" if isnan(seconds) else "forever"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left, found = round(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if found and not count:
            return found
        if count and found:
            return f"{found}{count}{unit}"
        if count:
            found = f"{count}{unit}"
    return found


def format_ratio(ratio: float) -> str:
    """Return how many times longer something took, in few characters: 0.04, 2.4, 12, 1,200."""
    if ratio < 0.01:  # noqa: PLR2004
        return "less than 0.01"
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"  # noqa: PLR2004
