"""Creates the families of samples of the metrics in `names`, with the help and the labels that stand there."""

from collections.abc import Collection, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)

from qworker.histogram import BUCKETS, bucket_at
from qworkerd.metrics.names import BOUNDS, METRICS

#: Sums of durations are counted in microseconds.
MICRO = 1e6

#: The labels of the buckets that are exported, and the bucket at which each ends.
_ENDS = [*((f"{bound:g}", bucket_at(bound)) for bound in BOUNDS), ("+Inf", BUCKETS)]


def labels_of(name: str, omitted: Collection[str] = ()) -> list[str]:
    """Return the labels of a metric, without those that the settings omit."""
    return [label for label in METRICS[name].labels if label not in omitted]


def counter(name: str, omitted: Collection[str] = ()) -> CounterMetricFamily:
    """Return a counter without samples."""
    return CounterMetricFamily(name, METRICS[name].help, labels=labels_of(name, omitted))


def gauge(name: str, omitted: Collection[str] = ()) -> GaugeMetricFamily:
    """Return a gauge without samples."""
    return GaugeMetricFamily(name, METRICS[name].help, labels=labels_of(name, omitted))


def histogram(name: str, omitted: Collection[str] = ()) -> HistogramMetricFamily:
    """Return a histogram without samples."""
    return HistogramMetricFamily(name, METRICS[name].help, labels=labels_of(name, omitted))


def summary(name: str) -> SummaryMetricFamily:
    """Return a summary without samples."""
    return SummaryMetricFamily(name, METRICS[name].help, labels=labels_of(name))


def number(name: str, value: float) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    family = gauge(name)
    family.add_metric([], value)
    return family


def gauges(name: str, values: Mapping[str, float], *before: str) -> GaugeMetricFamily:
    """Return a gauge whose last label is the key; `before` are the values of the labels that precede it."""
    family = gauge(name)
    for label, value in values.items():
        family.add_metric([*before, label], value)
    return family


def add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], cells: Sequence[int], start: int, micro: int
) -> None:
    """Add a histogram; the bounds of its buckets are bounds of the buckets that were counted."""
    buckets, below, at = [], 0, start
    for name, bucket in _ENDS:
        below += sum(cells[at : start + bucket])
        at = start + bucket
        buckets.append((name, below))
    family.add_metric(labels, buckets, micro / MICRO)
