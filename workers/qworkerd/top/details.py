"""Everything about one row, as facts."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from qworker.admin import Admin
from qworker.counts import Counts
from qworker.error_groups import ErrorGroup
from qworker.errors import JobNotFound
from qworker.findings import Finding
from qworker.job import Job, JobState
from qworker.snapshot import QueueActivity, RunningJob
from qworker.stacks import JobStack
from qworker.status import NodeStatus
from qworker.timetable import ScheduleEntry
from qworkerd.log.redaction import mask
from qworkerd.log.visible import visible
from qworkerd.top.cells import NONE, between, duration, fit, harmless, number
from qworkerd.top.columns import BAD, DIM, PLAIN, WARNING
from qworkerd.top.facts import Fact, json_of, shown, text_of, time_of
from qworkerd.top.overview import TITLE

#: What is not shown of a job among its facts, because it is shown otherwise or says nothing.
_APART = frozenset({"errors", "args", "result", "progress", "meta", "duplicate", "hook", "id"})
_JSON = ("args", "result", "progress", "meta")
#: Number of coming ticks that are shown.
COMING = 10


def read(admin: Admin, row: Any) -> tuple[str, list[Fact]]:
    """Return a title and the facts about a row, read anew where that says more."""
    if isinstance(row, (Job, RunningJob)):
        return _job(admin, row)
    if isinstance(row, QueueActivity):
        return f"Queue {harmless(row.name)}", list(_queue(row))
    if isinstance(row, NodeStatus):
        return f"Node {harmless(row.name)}", list(_node(row))
    if isinstance(row, ScheduleEntry):
        return f"Schedule {harmless(row.name)}", list(_schedule(row))
    if isinstance(row, Finding):
        return f"Finding {row.check}", list(_finding(row))
    if isinstance(row, ErrorGroup):
        return f"Errors {row.fingerprint}", list(_group(row))
    raise TypeError(f"no details of {type(row).__name__}")


def stack(found: JobStack) -> tuple[str, list[Fact]]:
    """Return a title and the stacks of a running job."""
    facts: list[Fact] = [
        ("node", harmless(found.node or "has ended"), PLAIN), ("worker", f"{found.worker} (pid {found.pid})", PLAIN),
        ("running for", duration(found.ran), PLAIN), ("read at", time_of(found.read_at), PLAIN),
    ]  # fmt: skip
    return f"Stack of job {found.job}", [*facts, *text_of(found.stacks)]


def _job(admin: Admin, row: Job | RunningJob) -> tuple[str, list[Fact]]:
    job = row.job if isinstance(row, RunningJob) else row
    title = f"Job {job.id}"
    try:
        job = admin.show(job.id)
    except JobNotFound:
        return title, [("", "this job does not exist any longer; what was known of it:", WARNING), *_facts_of(job)]
    facts = list(_facts_of(job))
    if job.state is JobState.RUNNING:
        facts += [
            ("runs on", harmless(f"{node.name}, worker {worker.number} (pid {worker.pid})"), PLAIN)
            for node in admin.nodes()
            for worker in node.workers
            if worker.job == job.id
        ]
    if job.state in (JobState.AVAILABLE, JobState.SCHEDULED):
        facts += [("why", harmless(reason.summary), PLAIN) for reason in admin.explain(job.id).reasons]
    for error in reversed(job.errors):
        facts += _error(error)
    return title, facts


def _facts_of(job: Job) -> Iterable[Fact]:
    for field in fields(job):
        value = getattr(job, field.name)
        if field.name in _APART or field.name.startswith("_") or value in (None, ()) or value is False:
            continue
        yield (field.name.replace("_", " "), shown(value), BAD if value is JobState.FAILED else PLAIN)
    for name in _JSON:
        value = getattr(job, name)
        if value is not None:
            yield (name, json_of(value), PLAIN)


def _error(error: Mapping[str, Any]) -> Iterable[Fact]:
    yield ("", "", PLAIN)
    yield ("", f"Attempt {harmless(error.get('attempt'))}, {harmless(error.get('at'))}", TITLE)
    message = error.get("message")
    yield ("", harmless(f"{error.get('type')}: {message}" if message else error.get("type")), BAD)
    if error.get("traceback"):
        yield from list(text_of(str(error["traceback"])))[1:]


def _queue(queue: QueueActivity) -> Iterable[Fact]:
    for name in ("available", "due", "scheduled", "running", "failed"):
        count = getattr(queue, name)
        yield (name, number(count, exact=queue.exact), BAD if name == "failed" and count else PLAIN)
    if not queue.exact:
        yield ("", "the numbers are estimates from a sample of the table, up to 15 s old", DIM)
    yield ("oldest", duration(queue.oldest_seconds), PLAIN)
    yield ("drain", duration(queue.drain_seconds), PLAIN)
    yield ("workers", f"{queue.workers:,}", PLAIN if queue.workers else BAD)
    yield ("served by", harmless(", ".join(queue.nodes) or "no live node"), PLAIN if queue.nodes else BAD)
    if queue.paused:
        yield ("paused", harmless(str(queue.paused)), WARNING)
    yield from _counts(queue.counts)


def _counts(counts: Counts) -> Iterable[Fact]:
    yield ("", "", PLAIN)
    yield ("", "Last hour", TITLE)
    for name in ("succeeded", "failed", "retried", "timed_out", "crashed", "lost", "cancelled", "expired"):
        yield (name.replace("_", " "), f"{getattr(counts, name):,}", PLAIN)
    for name, found in (("waited", counts.wait), ("ran", counts.run)):
        values = ", ".join(
            f"{label} {duration(found.quantile(fraction))}"
            for label, fraction in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1.0))
        )
        yield (name, values, PLAIN)


def _node(node: NodeStatus) -> Iterable[Fact]:
    yield ("id", str(node.id), PLAIN)
    yield ("version", harmless(node.version), PLAIN)
    yield ("queues", harmless(", ".join(node.queues)), PLAIN)
    yield ("started", time_of(node.started_at), PLAIN)
    yield (
        "heartbeat",
        f"{duration(node.heartbeat_age)} ago" + ("" if node.alive else ", overdue"),
        PLAIN if node.alive else BAD,
    )
    yield ("lease", duration(node.lease_seconds), PLAIN)
    if node.paused:
        yield ("paused", harmless(str(node.paused)), WARNING)
    death = node.last_death
    if death is not None:
        yield (
            "last death",
            harmless(f"worker {death.worker} (pid {death.pid}) at {time_of(death.at)}: {death.cause}"),
            WARNING,
        )
        yield ("deaths", f"{death.count:,} since it started", WARNING)
    yield ("", "", PLAIN)
    yield ("", f"{'WORKER':>6}  {'PID':>8}  {'PHASE':<10}  {'DONE':>10}  {'MIB':>7}  {'RAN':>7}  JOB", TITLE)
    for worker in node.workers:
        cells = (
            f"{harmless(worker.number):>6}", f"{harmless(worker.pid):>8}", fit(harmless(worker.phase), 10),
            f"{NONE if worker.jobs_done is None else number(worker.jobs_done):>10}", f"{harmless(worker.rss_mib):>7}",
            f"{between(worker.since, node.heartbeat_at):>7}",
            "" if worker.job is None else f"{worker.job} {harmless(worker.task)}",
        )  # fmt: skip
        yield ("", "  ".join(cells), PLAIN)


def _schedule(schedule: ScheduleEntry) -> Iterable[Fact]:
    for name in ("task", "expression", "timezone"):
        yield (name, harmless(getattr(schedule, name)), PLAIN)
    yield ("last tick", time_of(schedule.last_tick), PLAIN)
    yield ("declared by", harmless(", ".join(schedule.nodes) or "no live node"), PLAIN if schedule.nodes else WARNING)
    if schedule.late_seconds is not None:
        late = f"{schedule.missed:,} ticks, the first by {duration(schedule.late_seconds)}"
        yield ("late", late, BAD)
    if schedule.note:
        yield ("note", harmless(schedule.note), WARNING)
    for number_, tick in enumerate(schedule.coming(COMING)):
        yield ("coming ticks" if not number_ else " ", time_of(tick), PLAIN)


def _finding(finding: Finding) -> Iterable[Fact]:
    yield ("severity", finding.severity.value, BAD)
    yield ("found", harmless(finding.summary), PLAIN)
    if finding.about:
        yield ("about", harmless(finding.about), PLAIN)
    if finding.advice:
        yield ("advice", harmless(finding.advice), PLAIN)
    for line in finding.remedy:
        yield ("remedy", visible(mask(line)), PLAIN)
    yield ("explained by", finding.documentation, DIM)
    if finding.evidence:
        yield ("evidence", json_of(dict(finding.evidence)), DIM)


def _group(group: ErrorGroup) -> Iterable[Fact]:
    yield ("error", harmless(f"{group.type}: {group.message}" if group.message else group.type), BAD)
    yield ("task", harmless(group.task), PLAIN)
    yield ("in", harmless(group.frame), PLAIN)
    yield ("state", group.state.value, PLAIN)
    yield ("count", f"{group.count:,}", PLAIN)
    yield ("first seen", time_of(group.first_seen), PLAIN)
    yield ("last seen", time_of(group.last_seen), PLAIN)
    yield ("queues", harmless(", ".join(group.queues)), PLAIN)
    yield (
        "releases",
        harmless(" to ".join(dict.fromkeys(filter(None, (group.first_release, group.last_release))))),
        PLAIN,
    )
    yield ("newest jobs", ", ".join(map(str, group.samples)), PLAIN)
