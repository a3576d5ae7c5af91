"""Checks of queues: jobs that wait although they could run."""

from collections import Counter
from shlex import quote

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworker.queues import queue_pause_of
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count, listed

#: Seconds that a job must have waited: nodes are restarted, and a queue may be long.
UNSERVED_AGE, STARVING_AGE = 30.0, 300.0
#: Jobs of a queue that are counted.
CAPPED = 1_000


@check("unserved-queue", Severity.STOPS, "doctor_queues", "waiting_queues")
def unserved_queue(row: Row, _: Subject) -> Explained | None:
    """Find queues with jobs that no live node serves."""
    if row["nodes"] or row["seconds"] < UNSERVED_AGE:
        return None
    return Explained(
        f"queue {row['queue']!r} holds {count(row['jobs'], 'available job', capped=CAPPED + 1)}, the first one has "
        f"waited for {format_duration(row['seconds'])}, and no live node serves it",
        advice="add the queue to a node (--queues), or start another node",
        remedy=(f"qworker --queues {quote(row['queue'])}",),
        about=f"queue {row['queue']}",
    )


@check("paused-nodes", Severity.WARNING, "doctor_queues", "waiting_queues")
def paused_nodes(row: Row, _: Subject) -> Explained | None:
    """Find queues with jobs whose nodes are all paused."""
    if not row["nodes"] or row["workers"] or row["seconds"] < UNSERVED_AGE:
        return None
    return Explained(
        f"queue {row['queue']!r} holds {count(row['jobs'], 'available job', capped=CAPPED + 1)}, the first one has "
        f"waited for {format_duration(row['seconds'])}, and all nodes that serve it are paused: {listed(row['nodes'])}",
        advice="resume one of the nodes, or start another one",
        remedy=(f"qworker workers resume {row['ids'][0]}",),
        about=f"queue {row['queue']}",
    )


@check("starving-queue", Severity.WARNING, "doctor_queues", "waiting_queues")
def starving_queue(row: Row, _: Subject) -> Explained | None:
    """Find queues whose nodes do not keep up."""
    if not row["workers"] or row["seconds"] < STARVING_AGE:
        return None
    tasks = [f"{number} run {task}" for task, number in Counter(row["tasks"] or ()).most_common()]
    running = f": {listed(tasks)}" if tasks else ""
    return Explained(
        f"the first of {count(row['jobs'], 'available job', capped=CAPPED + 1)} of queue {row['queue']!r} has waited "
        f"for {format_duration(row['seconds'])}; {row['busy']} of {count(row['workers'], 'worker')} that serve it are "
        f"busy{running}",
        advice="start more workers (--processes) or another node; if workers are idle, see `qworker why ID` of a job",
        remedy=(f"qworker --queues {quote(row['queue'])}",),
        about=f"queue {row['queue']}",
    )


@check("long-pause", Severity.HINT, "doctor_queues", "long_pauses", {"pause_age": 86_400.0})
def long_pause(row: Row, _: Subject) -> Explained:
    """Find queues that were paused and forgotten."""
    facts = ("queue", "paused_at", "paused_by", "pause_reason")
    pause = queue_pause_of(**{name: row[name] for name in facts})
    return Explained(
        f"queue {row['queue']!r} has been paused for {format_duration(row['seconds'])}, {pause}",
        remedy=(f"qworker queues resume {quote(row['queue'])}",),
        about=f"queue {row['queue']}",
    )


@check("unknown-task", Severity.WARNING, "doctor_queues", "unknown_tasks")
def unknown_task(row: Row, _: Subject) -> Explained:
    """Find jobs of tasks that the nodes do not know."""
    ids = " ".join(map(str, row["ids"]))
    return Explained(
        f"{count(row['jobs'], 'job')} of task {row['task']!r} wait because the workers of queue "
        f"{listed(row['queues'])} do not know the task",
        advice="deploy the code that declares it; jobs that nobody needs can be cancelled",
        remedy=(f"qworker jobs cancel {ids}",),
        about=f"task {row['task']}",
    )


@check("not-promoted", Severity.STOPS, "doctor_queues", "not_promoted", {"late": 30.0})
def not_promoted(row: Row, _: Subject) -> Explained:
    """Find jobs that are due and do not become available."""
    jobs = count(row["jobs"], "scheduled job", capped=CAPPED + 1)
    return Explained(
        f"{jobs} became due up to {format_duration(row['seconds'])} ago, and {'are' if row['jobs'] > 1 else 'is'} not "
        f"available yet; {count(row['nodes'], 'node')} {'are' if row['nodes'] != 1 else 'is'} live",
        advice="start a node" if not row["nodes"] else (
            "see lock-wait, and maintenance.error and maintenance.row_refused in the log of the nodes"
        ),
        remedy=() if row["nodes"] else ("qworker",),
    )  # fmt: skip


@check("retry-storm", Severity.HINT, "doctor_queues", "retry_storms", {"retrying": 1_000})
def retry_storm(row: Row, _: Subject) -> Explained:
    """Find queues in which a large number of jobs wait for another attempt."""
    return Explained(
        f"{count(row['jobs'], 'job', capped=10_001)} of queue {row['queue']!r} wait for another attempt, beside "
        f"{count(row['workers'], 'worker')}",
        advice="a service that the jobs need is probably down: pause the queue until it is back",
        remedy=(f"qworker queues pause {quote(row['queue'])} --reason 'retry storm'",),
        about=f"queue {row['queue']}",
    )


CHECKS = (unserved_queue, paused_nodes, starving_queue, long_pause, unknown_task, not_promoted, retry_storm)
