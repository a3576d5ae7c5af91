"""The nodes and their workers: what each runs since when, its memory, why workers have died; pause and resume."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint

from qworker.counts import Counts
from qworker.nodes import find
from qworker.statistics import Statistics
from qworker.status import LastDeath, NodeStatus, WorkerStatus
from qworkerd.web import texts
from qworkerd.web.ages import LIVE
from qworkerd.web.answers import Done, action, page
from qworkerd.web.narrowing import Narrowed, narrow
from qworkerd.web.pages import Entry
from qworkerd.web.spans import Span
from qworkerd.web.view import View

blueprint = Blueprint("workers", __name__)
#: Nodes that the page shows, each with its workers; JSON and CSV have all.
MAX_NODES = 50
entry = Entry("workers.index", texts.words.WORKERS, "w")


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node and its workers."""

    node: NodeStatus
    alive: bool
    workers: Sequence[WorkerStatus]
    last_death: LastDeath | None

    @property
    def state(self) -> str:
        """The state of the node."""
        if not self.alive:
            return "silent"
        return "paused" if self.node.paused else "idle" if self.node.idle else "live"

    @property
    def memory(self) -> float | None:
        """The resident memory of all workers (bytes); pages that they share count for each of them."""
        sizes = [worker.rss_mib for worker in self.workers if worker.rss_mib is not None]
        return sum(sizes) * 1_048_576 if sizes else None


@dataclass(frozen=True, slots=True)
class WorkersData:
    """What the page shows."""

    nodes: Narrowed[NodeRow]
    span: Span
    #: How many attempts ended with their worker or node in the period, by cause; those that timed out, too.
    deaths: Sequence[tuple[str, int]]

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return {
            **self.span.parameters, "deaths": dict(self.deaths),
            "nodes": [
                {**{name: getattr(row.node, name) for name in row.node.__slots__ if name != "state"},
                 "alive": row.alive, "last_death": row.last_death, "workers": row.workers}
                for row in self.nodes.lines
            ],
        }  # fmt: skip


@page(blueprint, "/workers", title=texts.words.WORKERS, table=lambda data: table(data.nodes.lines))
def index(view: View) -> WorkersData:
    """Return the nodes that have not been declared dead."""
    span, statistics = view.span(), Statistics(view.source.schema)
    nodes = view.get("nodes", LIVE, view.source.admin.nodes)
    counted = view.share_counts(("counts", span), lambda conn: statistics.queues(conn, span.seconds, until=span.until))
    rows = [NodeRow(node, node.alive, node.workers, node.last_death) for node in nodes]
    return WorkersData(
        narrow(rows, lambda row: row.node.name, view.parameters.text("find"), MAX_NODES), span,
        deaths(one.counts for one in counted),
    )  # fmt: skip


@action(blueprint, "/workers/pause", right="node.pause")
def pause(view: View) -> Done:
    """Pause a node."""
    node = find(view.form.required("node"), view.source.acting.nodes())
    changed = view.source.acting.pause_nodes(node.id, reason=view.form.text("reason", longest=1_000) or None)
    return Done(
        texts.workers.paused(node.name, before=not changed), result={"node": node.id, "paused": True},
        changed=bool(changed),
    )  # fmt: skip


@action(blueprint, "/workers/resume", right="node.resume")
def resume(view: View) -> Done:
    """Resume a node."""
    node = find(view.form.required("node"), view.source.acting.nodes(), live=False)
    changed = view.source.acting.resume_nodes(node.id)
    return Done(
        texts.workers.resumed(node.name, before=not changed), result={"node": node.id, "paused": False},
        changed=bool(changed),
    )  # fmt: skip


def deaths(counts: Iterable[Counts]) -> list[tuple[str, int]]:
    """Return the number of attempts by the cause that ended them, without causes that have not occurred."""
    known = list(counts)
    numbers = ((cause, sum(getattr(one, cause) for one in known)) for cause in texts.workers.CAUSES)
    return [(cause, number) for cause, number in numbers if number]


def table(nodes: Iterable[NodeRow]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the workers for a spreadsheet."""
    head = ("node", "worker", "pid", "phase", "job", "task", "since", "timeout_at", "rss_mib", "jobs_done", "version",
            "node_paused_at", "node_paused_by", "node_pause_reason")  # fmt: skip
    return head, (
        (row.node.name, w.number, w.pid, w.phase, w.job, w.task, w.since, w.until, w.rss_mib, w.jobs_done,
         row.node.version,
         *((p.at, p.by, p.reason) if (p := row.node.paused) else (None, None, None)))
        for row in nodes for w in row.workers
    )  # fmt: skip
