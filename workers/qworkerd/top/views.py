"""The tables of queues, nodes, schedules and findings."""

from collections.abc import Callable
from datetime import datetime

from qworker.findings import Finding, Severity
from qworker.snapshot import QueueActivity
from qworker.status import NodeStatus
from qworker.timetable import ScheduleEntry
from qworkerd.top.cells import ago, between, clock, duration, harmless, number, short
from qworkerd.top.columns import BAD, DIM, PLAIN, WARNING, Column
from qworkerd.top.view import View, dim_zero, none_first

#: The age from which on the oldest available job of a queue is marked (seconds).
OLD = 60.0


def _failures(queue: QueueActivity) -> str:
    return BAD if queue.failed else DIM


def _age(queue: QueueActivity) -> str:
    return WARNING if queue.oldest_seconds is not None and queue.oldest_seconds >= OLD else PLAIN


def _count(of: Callable[[QueueActivity], int]) -> Callable[[QueueActivity, datetime], str]:
    return lambda queue, _now: number(of(queue), exact=queue.exact)


def _states(queue: QueueActivity) -> list[str]:
    return [name for name in ("available", "scheduled", "running", "failed") if getattr(queue, name)]


def _reason(row: QueueActivity | NodeStatus, _now: datetime) -> str:
    pause = row.paused
    return "" if pause is None else harmless(pause.reason or f"by {pause.by}")


QUEUES = View[QueueActivity](
    "queues",
    [
        Column("QUEUE", lambda q, _: harmless(q.name), lambda q: q.name, least=18,
               style=lambda q: WARNING if q.paused else PLAIN),
        Column("AVAILABLE", _count(lambda q: q.available), lambda q: q.available, right=True, descending=True,
               style=dim_zero(lambda q: q.available)),
        Column("RUNNING", _count(lambda q: q.running), lambda q: q.running, right=True, descending=True, rank=3,
               style=dim_zero(lambda q: q.running)),
        Column("SCHEDULED", _count(lambda q: q.scheduled), lambda q: q.scheduled, right=True, descending=True, rank=4,
               style=dim_zero(lambda q: q.scheduled)),
        Column("FAILED", _count(lambda q: q.failed), lambda q: q.failed, right=True, descending=True, rank=1,
               style=_failures),
        Column("OLDEST", lambda q, _: duration(q.oldest_seconds), none_first(lambda q: q.oldest_seconds), right=True,
               descending=True, rank=2, style=_age),
        Column("DONE/H", lambda q, _: short(q.counts.succeeded), lambda q: q.counts.succeeded, right=True,
               descending=True, rank=5, style=dim_zero(lambda q: q.counts.succeeded)),
        Column("WAIT P95", lambda q, _: duration(q.counts.wait.quantile(0.95)),
               none_first(lambda q: q.counts.wait.quantile(0.95)), right=True, descending=True, rank=6),
        Column("RUN P95", lambda q, _: duration(q.counts.run.quantile(0.95)),
               none_first(lambda q: q.counts.run.quantile(0.95)), right=True, descending=True, rank=7),
        Column("DRAIN", lambda q, _: duration(q.drain_seconds), none_first(lambda q: q.drain_seconds), right=True,
               descending=True, rank=5),
        Column("WORKERS", lambda q, _: number(q.workers), lambda q: q.workers, right=True, descending=True, rank=3,
               style=lambda q: PLAIN if q.workers else BAD),
        Column("PAUSED", _reason, lambda q: q.paused is None, least=12, rank=1, style=lambda _: WARNING),
    ],
    key=lambda q: q.name, sort=0, empty="no queue has jobs, and no node serves one",
    fields={"queue": lambda q: [q.name], "node": lambda q: q.nodes, "state": _states},
)  # fmt: skip


def _memory(node: NodeStatus) -> float | None:
    sizes = [worker.rss_mib for worker in node.workers if worker.rss_mib is not None]
    return sum(sizes) if sizes else None


def _last_death(node: NodeStatus, now: datetime) -> str:
    death = node.last_death
    if death is None:
        return ""
    count = "" if death.count == 1 else f", {death.count:,} deaths"
    return harmless(f"{death.cause} {ago(death.at, now)} ago{count}")


NODES = View[NodeStatus](
    "nodes",
    [
        Column("NODE", lambda n, _: harmless(n.name), lambda n: n.name, least=12,
               style=lambda n: BAD if not n.alive else WARNING if n.paused else PLAIN),
        Column("BUSY", lambda n, _: f"{n.busy}/{n.worker_count}", lambda n: n.busy, right=True, descending=True),
        Column("HEARTBEAT", lambda n, _: duration(n.heartbeat_age) + ("" if n.alive else ", overdue"),
               lambda n: n.heartbeat_age, right=True, descending=True, style=lambda n: PLAIN if n.alive else BAD),
        Column("UPTIME", lambda n, _: between(n.started_at, n.heartbeat_at), lambda n: -n.started_at.timestamp(),
               right=True, descending=True, rank=2),
        Column("RSS MIB", lambda n, _: harmless(None if (size := _memory(n)) is None else f"{size:,.0f}"),
               none_first(_memory), right=True, descending=True, rank=4),
        Column("VERSION", lambda n, _: harmless(n.version), lambda n: n.version, least=7, rank=5),
        Column("QUEUES", lambda n, _: harmless(", ".join(n.queues)), lambda n: n.queues, least=12, rank=3),
        Column("PAUSED", _reason, lambda n: n.paused is None, least=12, rank=1, style=lambda _: WARNING),
        Column("LAST DEATH", _last_death, lambda n: n.last_death is None, least=10, rank=1, style=lambda _: WARNING),
    ],
    key=lambda n: n.id, sort=0, empty="no node is registered: start one with `qworker`",
    fields={"node": lambda n: [n.name, str(n.id)], "queue": lambda n: n.queues},
)  # fmt: skip


def _note(schedule: ScheduleEntry) -> str:
    if schedule.paused is not None:
        reason = f": {schedule.paused.reason}" if schedule.paused.reason else ""
        return harmless(f"paused by {schedule.paused.by}{reason}")
    late = f"{schedule.missed:,} ticks late; " if schedule.missed else ""
    return (late + schedule.note).removesuffix("; ")


SCHEDULES = View[ScheduleEntry](
    "schedules",
    [
        Column("SCHEDULE", lambda s, _: harmless(s.name), lambda s: s.name, least=24),
        Column("EXPRESSION", lambda s, _: harmless(s.expression), lambda s: s.expression, least=14,
               rank=2),
        Column("NEXT", lambda s, now: clock(s.next_tick, now),
               lambda s: s.next_tick.timestamp() if s.next_tick else float("inf"), right=True),
        Column("IN", lambda s, now: between(now, s.next_tick),
               lambda s: s.next_tick.timestamp() if s.next_tick else float("inf"), right=True, rank=1),
        Column("LAST", lambda s, now: clock(s.last_tick, now),
               none_first(lambda s: s.last_tick.timestamp() if s.last_tick else None), right=True,
               descending=True, rank=3),
        Column("ZONE", lambda s, _: harmless(s.timezone), lambda s: s.timezone, least=13, rank=6),
        Column("TASK", lambda s, _: harmless(s.task), lambda s: s.task, least=20, rank=5),
        Column("NOTE", lambda s, _: _note(s), _note, least=24, rank=1, style=lambda _: WARNING),
    ],
    key=lambda s: s.name, sort=2, empty="no schedules",
    fields={"cron": lambda s: [s.name], "task": lambda s: [s.task], "node": lambda s: s.nodes},
)  # fmt: skip

_SEVERITIES = {Severity.STOPS: BAD, Severity.WARNING: WARNING, Severity.HINT: DIM}

DOCTOR = View[Finding](
    "doctor",
    [
        Column("SEVERITY", lambda f, _: f.severity.value, lambda f: [*_SEVERITIES].index(f.severity),
               style=lambda f: _SEVERITIES[f.severity]),
        Column("CHECK", lambda f, _: harmless(f.check), lambda f: f.check, least=12),
        Column("FINDING", lambda f, _: harmless(f.summary), lambda f: f.summary, least=30),
    ],
    key=lambda f: f.key, sort=0, empty="nothing found", fields={},
)  # fmt: skip
