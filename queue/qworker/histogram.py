"""Histograms of durations with logarithmic buckets, four in an octave: a percentile is off by at most 9 %."""

from collections.abc import Mapping
from math import log2

#: The number of buckets: from 62 microseconds to three days.
BUCKETS = 128
#: The number of buckets in which durations double.
PER_OCTAVE = 4
#: The bucket that begins at one millisecond.
MILLISECOND = 16
#: The bucket of a duration of one second.
_SECOND = MILLISECOND + PER_OCTAVE * log2(1000)
_GROWTH = 2 ** (1 / PER_OCTAVE)
_LAST = BUCKETS - 1
#: Decimal digits of the count of a bucket in a number that is a whole histogram: see the SQL function `histogram`.
_DIGITS = 12
#: Longer than the last bucket begins (seconds).
_LIMIT = 1e9


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration. A time edited by hand may make it infinite, or no number."""
    if not 0 < seconds < _LIMIT:
        return _LAST if seconds > 0 else 0
    # int() rounds towards zero: what is below the first bucket belongs to it.
    number = int(PER_OCTAVE * log2(seconds) + _SECOND)
    return 0 if number < 0 else min(number, _LAST)


def lower_bound(bucket: int) -> float:
    """Return the duration at which a bucket begins (seconds)."""
    return float(2 ** ((bucket - MILLISECOND) / PER_OCTAVE)) / 1000


def value_of(bucket: int) -> float:
    """Return the duration that stands for a bucket (seconds): of all in it, none differs by more than 8.7 %."""
    return lower_bound(bucket) * 2 * _GROWTH / (1 + _GROWTH)


def quantile(counts: Mapping[int, int], fraction: float, *, instant: int = 0) -> float | None:
    """Return a quantile of the durations that were counted by bucket; None if there are none.

    instant: buckets below this one stand for a duration of 0.
    """
    total = sum(counts.values())
    if total <= 0:
        return None
    rank, below = fraction * (total - 1), 0
    for bucket in sorted(counts):
        below += counts[bucket]
        if below > rank:
            return value_of(bucket) if bucket >= instant else 0.0
    return value_of(max(counts))


def bucket_at(bound: float) -> int:
    """Return the bucket that begins at a bound (seconds)."""
    return round(PER_OCTAVE * log2(bound) + _SECOND)


def unpack(number: str | None) -> dict[int, int]:
    """Return the buckets of a histogram that is stored as one number, and are not empty; None is an empty histogram."""
    counts = {}
    for bucket, end in enumerate(range(len(number or ""), 0, -_DIGITS)):
        if count := int((number or "")[max(0, end - _DIGITS) : end]):
            counts[bucket] = count
    return counts
