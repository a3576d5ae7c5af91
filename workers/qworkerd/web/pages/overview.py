"""The overview: what the queues did in a period, what they hold now, and what is wrong."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from flask import Blueprint

from qworker.counts import Counts, total
from qworker.depth import Depths, QueueDepth
from qworker.findings import Finding
from qworker.queues import QueuePause
from qworker.statistics import Deployment, Point, SeriesCounts, Statistics
from qworkerd.web import health, texts
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import page
from qworkerd.web.charts import Chart
from qworkerd.web.pages import Entry
from qworkerd.web.spans import Span
from qworkerd.web.trends import depth, trends
from qworkerd.web.view import View

blueprint = Blueprint("overview", __name__)
entry = Entry("overview.index", texts.words.OVERVIEW, "o")


#: Queues that the page shows; JSON and CSV have all.
MAX_QUEUES = 50


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue: its last sample, its counts in the period, and its pause."""

    queue: str
    depth: QueueDepth | None
    counts: Counts
    paused: QueuePause | None


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows."""

    span: Span
    #: The sum of all queues.
    total: Counts
    #: The last sizes of all queues together, which are those of now; None without a sample in the last minutes.
    depth: QueueDepth | None
    queues: list[QueueRow]
    #: The counts of each part of the period, and the sizes of all queues together.
    points: list[Point]
    depths: list[QueueDepth]
    deployments: list[Deployment]
    #: The number of nodes that live.
    nodes: int
    #: What the doctor has found, without hints.
    findings: list[Finding]

    @property
    def shown(self) -> list[QueueRow]:
        """The queues of the page: all of them, or those that are paused, hold jobs or have done most, by name."""
        if len(self.queues) <= MAX_QUEUES:
            return self.queues
        return sorted(nlargest(MAX_QUEUES, self.queues, key=_weight), key=lambda row: row.queue)

    def charts(self) -> dict[str, Chart]:
        """Return the charts of the page."""
        sizes = depth(self.span.slots(self.span.depth_step), self.depths, texts.charts.IN_QUEUES, self.deployments)
        return trends(self.span.slots(), self.points, self.deployments) | {"depth": sizes}

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known = {name: getattr(self, name) for name in self.__slots__ if name != "span"}
        return {"seconds": self.span.seconds} | self.span.parameters | known


@page(blueprint, "/", title=texts.words.OVERVIEW, table=lambda data: table(data.queues))
def index(view: View) -> Overview:
    """Return the counts of the period and the newest sizes."""
    span, schema, admin = view.span(), view.source.schema, view.source.admin
    statistics, depths, seconds, until = Statistics(schema), Depths(schema), span.seconds, span.until

    def counted(key: str, make: Callable[[Any], Any]) -> Any:
        return view.share_counts((key, span), make)

    counts = counted("counts", lambda conn: statistics.queues(conn, seconds, until=until))
    points = counted("points", lambda conn: statistics.chart(conn, seconds, span.step, until=until))
    sizes = counted("depths", lambda conn: statistics.depths(conn, seconds, until=until, step=span.depth_step))
    deployments = counted("deployments", lambda conn: statistics.deployments(conn, seconds, until=until))
    newest = view.share("newest", CURRENT, depths.newest)
    pauses = view.get("paused", CURRENT, admin.paused)
    nodes = view.get("nodes", CURRENT, admin.nodes)
    return Overview(
        span, total(one.counts for one in counts), _total(newest), _rows(counts, newest, pauses), points,
        sizes, deployments, sum(node.heartbeat_age < node.lease_seconds for node in nodes), health.findings(view),
    )  # fmt: skip


def table(rows: Sequence[QueueRow]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the table of the queues for a spreadsheet; times are in seconds."""
    head = (
        "queue", "available", "running", "scheduled", "failed", "oldest", "completed_in_period", "failed_in_period",
        "wait_p95", "run_p95",
    )  # fmt: skip
    return head, (
        (row.queue, *((d.available, d.running, d.scheduled, d.failed, d.oldest) if (d := row.depth) else [None] * 5),
         row.counts.succeeded, row.counts.failed, row.counts.wait.quantile(0.95), row.counts.run.quantile(0.95))
        for row in rows
    )  # fmt: skip


def _weight(row: QueueRow) -> tuple[bool, int, int]:
    sizes = row.depth
    held = 0 if sizes is None else sizes.available + sizes.due + sizes.running + sizes.failed
    return row.paused is not None, held, row.counts.attempts


def _rows(
    counts: Iterable[SeriesCounts], newest: Iterable[QueueDepth], pauses: Iterable[QueuePause]
) -> list[QueueRow]:  # fmt: skip
    counted = {one.queue: one.counts for one in counts}
    sampled = {one.queue: one for one in newest}
    paused = {one.queue: one for one in pauses}
    return [
        QueueRow(name, sampled.get(name), counted.get(name, Counts()), paused.get(name))
        for name in sorted({*counted, *sampled, *paused})
    ]


def _total(newest: Sequence[QueueDepth]) -> QueueDepth | None:
    if not newest:
        return None
    ages = [one.oldest for one in newest if one.oldest is not None]
    return QueueDepth(
        queue="", at=newest[0].at, available=sum(one.available for one in newest), due=sum(one.due for one in newest),
        scheduled=sum(one.scheduled for one in newest), running=sum(one.running for one in newest),
        failed=sum(one.failed for one in newest), oldest=max(ages, default=None),
        exact=all(one.exact for one in newest),
    )  # fmt: skip
