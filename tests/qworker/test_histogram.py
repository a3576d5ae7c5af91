"""Logarithmic histograms: what they count, and how far a percentile may be off."""

import random
from collections import Counter
from statistics import quantiles

import pytest

from qworker import histogram
from tests.database import Database


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.5, 0.95, 0.99])
def test_a_percentile_is_off_by_less_than_nine_percent(seed: int, fraction: float) -> None:
    draw = random.Random(seed)
    durations = [draw.lognormvariate(0.0, 2.0) for _ in range(20_000)]
    counts = Counter(map(histogram.bucket_of, durations))
    exact = quantiles(durations, n=100, method="inclusive")[round(fraction * 100) - 1]
    assert histogram.quantile(counts, fraction) == pytest.approx(exact, rel=0.09)


def test_each_duration_is_in_its_bucket() -> None:
    draw = random.Random(1)
    for duration in (10 ** draw.uniform(-4, 5) for _ in range(10_000)):
        bucket = histogram.bucket_of(duration)
        assert histogram.lower_bound(bucket) <= duration * 1.000001
        assert duration <= histogram.lower_bound(bucket + 1) * 1.000001


@pytest.mark.parametrize(
    ("duration", "bucket"),
    [(-5.0, 0), (0.0, 0), (1e-9, 0), (0.001, 16), (0.002, 20), (float("-inf"), 0), (1e12, 127)],
)
def test_the_ends_of_the_scale(duration: float, bucket: int) -> None:
    assert histogram.bucket_of(duration) == bucket


def test_there_is_no_percentile_of_nothing() -> None:
    assert histogram.quantile({}, 0.5) is None
    assert histogram.quantile({20: 0}, 0.5) is None


def test_instants_have_no_duration() -> None:
    assert histogram.quantile({0: 10, 20: 1}, 0.5, instant=histogram.MILLISECOND) == 0.0


def test_a_number_holds_a_whole_histogram(database: Database) -> None:
    """PostgreSQL packs and adds histograms, and both sides unpack them."""
    counts = {0: 7, 3: 1, 90: 999_999_999_999, 127: 5}
    with database.connect() as conn:
        ((text, added, empty),) = conn.execute(
            "SELECT h::text, a::text, qworker.histogram('{}', '{}')::text"
            "  FROM qworker.histogram(%s::integer[], %s::bigint[]) AS h,"
            "       (SELECT sum(qworker.histogram(ARRAY[n, 127], ARRAY[n, 1]))"
            "          FROM generate_series(1, 3) AS n) AS s (a)",
            (list(counts), list(counts.values())),
        ).fetchall()
        assert histogram.unpack(text) == counts
        assert histogram.unpack(added) == {1: 1, 2: 2, 3: 3, 127: 3}
        assert dict(conn.execute("SELECT * FROM qworker.buckets(%s)", (text,)).fetchall()) == counts
    assert histogram.unpack(empty) == histogram.unpack(None) == {}
