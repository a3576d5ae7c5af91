"""The tables of jobs: those that run, those that have failed, and the groups of their errors."""

from datetime import datetime

from qworker.error_groups import ErrorGroup, GroupState
from qworker.job import Job
from qworker.snapshot import RunningJob
from qworkerd.top.cells import ago, bars, between, harmless, number, short
from qworkerd.top.columns import BAD, DIM, GOOD, PLAIN, WARNING, Column
from qworkerd.top.view import View, none_first

#: The number of bars of a group of errors, one for each two hours.
GROUP_BARS = 12
#: The part of the timeout from which on a job is marked.
NEARLY = 0.9


def _left(run: RunningJob, now: datetime) -> str:
    return between(now, run.worker.until) if run.worker and run.worker.until else "-"


def _near_timeout(run: RunningJob) -> str:
    worker = run.worker
    if worker is None or worker.since is None or worker.until is None or run.node is None:
        return PLAIN
    whole, ran = worker.until - worker.since, run.node.heartbeat_at - worker.since
    return WARNING if ran >= NEARLY * whole else PLAIN


def _progress(job: Job) -> str:
    found = job.progress or {}
    fraction, text = found.get("fraction"), found.get("text")
    parts = [f"{fraction:.0%}"] if isinstance(fraction, (int, float)) else []
    return " ".join(parts + [harmless(text)] * bool(text))


def _cancelled(run: RunningJob) -> str:
    return WARNING if run.job.cancel_requested_at else PLAIN


RUNNING = View[RunningJob](
    "running",
    [
        Column("JOB", lambda r, _: str(r.job.id), lambda r: r.job.id, right=True, style=_cancelled),
        Column("TASK", lambda r, _: harmless(r.job.task), lambda r: r.job.task, least=20),
        Column("QUEUE", lambda r, _: harmless(r.job.queue), lambda r: r.job.queue, least=8, rank=2),
        Column("RAN", lambda r, now: between(r.since, now),
               none_first(lambda r: None if r.since is None else -r.since.timestamp()), right=True, descending=True,
               style=_near_timeout),
        Column("TIMEOUT", _left,
               none_first(lambda r: r.worker.until.timestamp() if r.worker and r.worker.until else None), right=True,
               rank=3, style=_near_timeout),
        Column("ATTEMPT", lambda r, _: number(r.job.attempt), lambda r: r.job.attempt, right=True, descending=True,
               rank=4),
        Column("NODE", lambda r, _: harmless(r.node and r.node.name), lambda r: r.node.name if r.node else "", least=8,
               rank=5),
        Column("WORKER", lambda r, _: harmless(r.worker and r.worker.number),
               lambda r: (r.worker and r.worker.number) or 0, right=True, rank=6),
        Column("RSS MIB", lambda r, _: harmless(r.worker and r.worker.rss_mib),
               none_first(lambda r: r.worker and r.worker.rss_mib), right=True, descending=True, rank=7),
        Column("PROGRESS", lambda r, _: "cancellation requested" if r.job.cancel_requested_at else _progress(r.job),
               lambda r: _progress(r.job), least=14, rank=1, style=_cancelled),
    ],
    key=lambda r: r.job.id, sort=3, empty="no job is running",
)  # fmt: skip


def _by_two_hours(group: ErrorGroup) -> list[int]:
    return [sum(group.recent[at : at + 2]) for at in range(0, len(group.recent), 2)]


GROUPS = View[ErrorGroup](
    "groups",
    [
        Column("LAST", lambda g, now: ago(g.last_seen, now), lambda g: g.last_seen.timestamp(), right=True,
               descending=True),
        Column("COUNT", lambda g, _: short(g.count), lambda g: g.count, right=True, descending=True),
        Column("24 HOURS", lambda g, _: bars(_by_two_hours(g), GROUP_BARS), lambda g: sum(g.recent), descending=True,
               rank=4, style=lambda _: BAD),
        Column("TASK", lambda g, _: harmless(g.task), lambda g: g.task, least=20),
        Column("ERROR", lambda g, _: harmless(f"{g.type}: {g.message}" if g.message else g.type), lambda g: g.type,
               least=36, style=lambda g: DIM if g.state is GroupState.RESOLVED else BAD),
        Column("STATE", lambda g, _: "again" if g.reopened_at and g.state is GroupState.OPEN else g.state.value,
               lambda g: g.state.value, rank=3, style=lambda g: GOOD if g.state is GroupState.RESOLVED else PLAIN),
        Column("IN", lambda g, _: harmless(g.frame), lambda g: g.frame or "", least=12, rank=5, style=lambda _: DIM),
    ],
    key=lambda g: g.fingerprint, sort=0, empty="no error has occurred",
)  # fmt: skip


def _error(job: Job) -> str:
    if not job.errors:
        return "-"
    last = job.errors[-1]
    message = last.get("message")
    return harmless(f"{last.get('type')}: {message}" if message else last.get("type"))


FAILED = View[Job](
    "failed",
    [
        Column("JOB", lambda j, _: str(j.id), lambda j: j.id, right=True, descending=True),
        Column("FAILED", lambda j, now: ago(j.finished_at, now),
               none_first(lambda j: j.finished_at.timestamp() if j.finished_at else None), right=True, descending=True),
        Column("QUEUE", lambda j, _: harmless(j.queue), lambda j: j.queue, least=8, rank=3),
        Column("TASK", lambda j, _: harmless(j.task), lambda j: j.task, least=20),
        Column("ATTEMPTS", lambda j, _: number(j.attempt), lambda j: j.attempt, right=True, descending=True, rank=4),
        Column("ERROR", lambda j, _: _error(j), _error, least=34, style=lambda _: BAD),
    ],
    key=lambda j: j.id, sort=None, empty="no failed jobs",
)  # fmt: skip
