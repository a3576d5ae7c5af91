"""Time on the wall: which instants a zone's clock shows it at, none, one or two.

A time on the wall is written as the seconds since 1970 at which UTC's clock shows it.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def instants(wall: float, zone: ZoneInfo) -> tuple[float, float]:
    """Return the instants at which the clock shows `wall`, in seconds since 1970.

    The first is less than the second if the time is repeated. It is greater if the time is left out: by the clock as it
    was before the change, and as it was after it (PEP 495).
    """
    shown = datetime.fromtimestamp(wall, UTC).replace(tzinfo=None)
    first = wall - _offset(shown.replace(tzinfo=zone))
    second = wall - _offset(shown.replace(tzinfo=zone, fold=1))
    return first, second


def gap_end(before: float, after: float, zone: ZoneInfo) -> float:
    """Return the one instant between two at which the clock is changed, to the second."""
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
    """Return what the clock shows at an instant, in UTC's terms.

    In the first pass of a time that will be repeated, that is where the second pass begins: all later instants show
    later times than this.
    """
    shown = datetime.fromtimestamp(instant, zone)
    wall = instant + _offset(shown)
    first, second = instants(wall, zone)
    if not shown.fold and first < second:
        change = gap_end(first, second, zone)
        # One second less: the walk excludes where it begins.
        wall = min(wall, change + _offset(datetime.fromtimestamp(change, zone)) - 1)
    return datetime.fromtimestamp(wall, UTC)


def _offset(local: datetime) -> float:
    offset = local.utcoffset()
    assert offset is not None  # noqa: S101 - ZoneInfo always knows
    return offset.total_seconds()
