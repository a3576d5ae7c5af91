"""The queues: what waits in them, how long it takes, who works it off; pause and resume."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint
from werkzeug.exceptions import NotFound

from qworker.audit import AuditEntry
from qworker.backlogs import BacklogReport, Backlogs, QueueBacklog
from qworker.counts import Counts
from qworker.depth import QueueDepth
from qworker.statistics import Deployment, Point, SeriesCounts, Statistics
from qworker.status import NodeStatus
from qworkerd.web import texts
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import Done, action, page
from qworkerd.web.charts import Chart
from qworkerd.web.narrowing import Narrowed, narrow
from qworkerd.web.pages import Entry
from qworkerd.web.spans import Span
from qworkerd.web.trends import depth, trends
from qworkerd.web.view import View

blueprint = Blueprint("queues", __name__)
entry = Entry("queues.index", texts.words.QUEUES, "q")


@dataclass(frozen=True, slots=True)
class QueuesData:
    """What the page of all queues shows."""

    queues: Narrowed[QueueBacklog]
    #: When the nodes have sampled the sizes; None if they were counted now.
    sampled_at: datetime | None


@dataclass(frozen=True, slots=True)
class QueueData:
    """What the page of one queue shows."""

    name: str
    span: Span
    #: None if it holds nothing, no node serves it, and it is not paused.
    backlog: QueueBacklog | None
    sampled_at: datetime | None
    counts: Counts
    points: Sequence[Point]
    depths: Sequence[QueueDepth]
    deployments: Sequence[Deployment]
    #: What was counted of each of its tasks, the most attempts first.
    tasks: Sequence[SeriesCounts]
    nodes: Sequence[NodeStatus]
    #: The last actions on the queue.
    audit: Sequence[AuditEntry]

    def charts(self) -> dict[str, Chart]:
        """Return the charts of the page."""
        sizes = depth(self.span.slots(self.span.depth_step), self.depths, texts.charts.IN_QUEUE)
        return trends(self.span.slots(), self.points, self.deployments) | {"depth": sizes}

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known = {name: getattr(self, name) for name in self.__slots__ if name != "span"}
        return {"seconds": self.span.seconds} | self.span.parameters | known


@page(blueprint, "/queues", title=texts.words.QUEUES, table=lambda data: table(data.queues.lines))
def index(view: View) -> QueuesData:
    """Return all queues."""
    report = _backlogs(view)
    return QueuesData(narrow(report.queues, lambda one: one.queue, view.parameters.text("find")), report.sampled_at)


@page(
    blueprint, "/queue", title=texts.words.QUEUE, template="queue.html", table=lambda data: task_table(data.tasks)
)  # fmt: skip
def show(view: View) -> QueueData:
    """Return everything about one queue."""
    name, span, statistics = view.parameters.exact("name"), view.span(), Statistics(view.source.schema)
    seconds, until = span.seconds, span.until

    def share(key: str, make: Callable[[Any], Any]) -> Any:
        return view.share_counts((f"queue.{key}", name, span), make)

    report = _backlogs(view)
    backlog = next((one for one in report.queues if one.queue == name), None)
    tasks = share("tasks", lambda conn: statistics.tasks(conn, seconds, until=until, queue=name))
    if backlog is None and not tasks and name not in _known(view, statistics):
        raise NotFound(texts.refusals.no_queue(name))
    counts = share("counts", lambda conn: statistics.queues(conn, seconds, until=until, queue=name))
    return QueueData(
        name, span, backlog, report.sampled_at, counts[0].counts if counts else Counts(),
        share("points", lambda conn: statistics.chart(conn, seconds, span.step, until=until, queue=name)),
        share("depths", lambda conn: statistics.depths(conn, seconds, until=until, step=span.depth_step, queue=name)),
        view.share_counts(("deployments", span), lambda conn: statistics.deployments(conn, seconds, until=until)),
        sorted(tasks, key=lambda one: -one.counts.attempts),
        [node for node in view.get("nodes", CURRENT, view.source.admin.nodes) if name in node.queues],
        view.get(("queue.audit", name), CURRENT, lambda: view.source.admin.audit(queue=name, limit=10)),
    )  # fmt: skip


@action(blueprint, "/queues/pause", right="queue.pause")
def pause(view: View) -> Done:
    """Pause a queue."""
    name = view.form.exact("name")
    changed = view.source.acting.pause(name, reason=view.form.text("reason", longest=1_000) or None)
    return Done(
        texts.queues.paused(name, before=not changed), result={"queue": name, "paused": True}, changed=bool(changed)
    )  # fmt: skip


@action(blueprint, "/queues/resume", right="queue.resume")
def resume(view: View) -> Done:
    """Resume a queue."""
    name = view.form.exact("name")
    changed = view.source.acting.resume(name)
    return Done(
        texts.queues.resumed(name, before=not changed), result={"queue": name, "paused": False}, changed=bool(changed)
    )  # fmt: skip


def table(queues: Iterable[QueueBacklog]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the queues for a spreadsheet; durations are in seconds."""
    head = (
        "queue", "available", "due", "scheduled", "running", "failed", "oldest", "workers", "rate", "mean_run", "drain",
        "exact", "paused_at", "paused_by", "pause_reason",
    )  # fmt: skip
    return head, (
        (q.queue, q.available, q.due, q.scheduled, q.running, q.failed, q.oldest_seconds, q.workers, q.rate,
         q.mean_run_seconds, q.drain_seconds, q.exact and not q.capped,
         *((q.paused.at, q.paused.by, q.paused.reason) if q.paused else (None, None, None)))
        for q in queues
    )  # fmt: skip


def task_table(tasks: Iterable[SeriesCounts]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return what was counted of tasks for a spreadsheet; durations are in seconds."""
    head = ("task", "queue", "attempts", "succeeded", "retried", "failed", "wait_p95", "run_p50", "run_p95", "run_p99")
    return head, (
        (one.task, one.queue, one.counts.attempts, one.counts.succeeded, one.counts.retried, one.counts.failed,
         one.counts.wait.quantile(0.95), *(one.counts.run.quantile(part) for part in (0.5, 0.95, 0.99)))
        for one in tasks
    )  # fmt: skip


def _backlogs(view: View) -> BacklogReport:
    return view.share("backlogs", CURRENT, Backlogs(view.source.schema).read)


def _known(view: View, statistics: Statistics) -> set[str]:
    return {queue for queue, _ in view.share_counts("series", statistics.names)}
