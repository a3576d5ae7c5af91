"""Charts of what was counted and sampled in a period: of all queues, of one queue, or of a task."""

from collections.abc import Callable, Iterable, Sequence

from qworker.counts import Counts, Durations
from qworker.depth import QueueDepth
from qworker.statistics import Deployment, Point
from qworkerd.web import texts
from qworkerd.web.axes import Period
from qworkerd.web.charts import Chart, Mark, Series, lines, stacked_bars

#: The quantiles that are drawn.
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
#: The outcomes that are drawn, each with what counts.
OUTCOMES: tuple[tuple[str, Callable[[Counts], int]], ...] = (
    ("completed", lambda counts: counts.succeeded),
    ("retried", lambda counts: counts.retried),
    ("failed", lambda counts: counts.failed),
    ("cancelled", lambda counts: counts.cancelled),
    ("lost", lambda counts: counts.lost + counts.crashed),
)


def trends(period: Period, points: Iterable[Point], deployments: Iterable[Deployment]) -> dict[str, Chart]:
    """Return the charts of outcomes (throughput), waits (wait) and run times (run), with marks for deployments."""
    marks = marks_of(deployments)
    known = [(point.at, point.counts) for point in points]

    def filled(number: Callable[[Counts], float | None], empty: float | None) -> list[float | None]:
        return period.fill([(at, number(counts)) for at, counts in known], empty)

    def quantiles(durations: Callable[[Counts], Durations]) -> Sequence[Series]:
        return [
            _series(name, filled(lambda counts, part=part: durations(counts).quantile(part), None))  # type: ignore[misc] # mypy cannot infer the type of a lambda with a default
            for name, part in QUANTILES
        ]

    outcomes = [_series(name, filled(number, 0)) for name, number in OUTCOMES]
    return {
        "throughput": stacked_bars(period, outcomes, title=texts.charts.THROUGHPUT, marks=marks),
        "wait": lines(period, quantiles(lambda counts: counts.wait), title=texts.charts.WAIT, marks=marks),
        "run": lines(period, quantiles(lambda counts: counts.run), title=texts.charts.RUN, marks=marks),
    }


def depth(
    period: Period, samples: Iterable[QueueDepth], title: str, deployments: Iterable[Deployment] = ()
) -> Chart:  # fmt: skip
    """Return the chart of the jobs that run and wait."""
    known = list(samples)
    running = _series("running", period.fill((one.at, one.running) for one in known))
    waiting = _series("waiting", period.fill((one.at, one.available + one.due) for one in known))
    return stacked_bars(period, [running, waiting], title=title, marks=marks_of(deployments))


def marks_of(deployments: Iterable[Deployment]) -> list[Mark]:
    """Return the marks of deployments."""
    return [Mark(one.at, one.version) for one in deployments]


def _series(kind: str, values: Sequence[float | None]) -> Series:
    return Series(texts.charts.series(kind), values, kind)
