"""Wall-clock time: converts it to the zero, one or two instants at which a zone's clock shows it.

A wall-clock time is represented by the seconds since 1970 at which a clock in UTC shows it.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def instants(wall: float, zone: ZoneInfo) -> tuple[float, float]:
    """Return the instants at which the clock shows `wall`, in seconds since 1970.

    If the time is repeated, the first is less than the second. If the time is skipped, the first is greater: they are
    computed with the offsets before and after the change (PEP 495).
    """
    shown = datetime.fromtimestamp(wall, UTC).replace(tzinfo=None)
    first = wall - _offset(shown.replace(tzinfo=zone))
    second = wall - _offset(shown.replace(tzinfo=zone, fold=1))
    return first, second


def gap_end(before: float, after: float, zone: ZoneInfo) -> float:
    """Return the instant between two at which the clock changes, to the second."""
    low, high = int(before), int(after)
    offset = _offset(datetime.fromtimestamp(low, zone))
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, zone)) == offset:
            low = middle
        else:
            high = middle
    return float(high)


def repeated_from(instant: float, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time at an instant, as a datetime in UTC.

    In the first pass of a repeated time, return the start of the second pass, so that all later instants show later
    times than the result.
    """
    shown = datetime.fromtimestamp(instant, zone)
    wall = instant + _offset(shown)
    first, second = instants(wall, zone)
    if not shown.fold and first < second:
        change = gap_end(first, second, zone)
        # One second less, because the iteration excludes its start.
        wall = min(wall, change + _offset(datetime.fromtimestamp(change, zone)) - 1)
    return datetime.fromtimestamp(wall, UTC)


def _offset(local: datetime) -> float:
    offset = local.utcoffset()
    assert offset is not None  # noqa: S101 - a ZoneInfo always has an offset
    return offset.total_seconds()
