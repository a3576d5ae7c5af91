"""Compares two jobs: arguments, options, attempts, errors and logs; finds the last success of the same task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from qworker.attempts import Attempt, attempts_of
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.decoding import decode_object
from qworker.differences import Differences, differences
from qworker.filters import Filter
from qworker.filters.model import Term, Value
from qworker.job import Job, JobState
from qworker.job_logs import AttemptLog
from qworker.search import Order, Search
from qworker.tracebacks import innermost_frames

#: Frames of a traceback, and lines of a log, that are compared.
MAX_FRAMES: Final = 3
MAX_LINES: Final = 10
#: Stands for an option that the job does not have of its own: that of the task applies.
OF_THE_TASK: Final = "task"


@dataclass(frozen=True, slots=True)
class Fact:
    """An option of two jobs, or where they ran."""

    #: Such as queue, priority, timeout or node_version.
    name: str
    #: Its values; None if it is not stored, or not any more.
    a: Any
    b: Any

    @property
    def differs(self) -> bool:
        """Whether both are known, and differ."""
        return self.a is not None and self.b is not None and self.a != self.b

    @property
    def known(self) -> bool:
        """Whether one of them is known."""
        return self.a is not None or self.b is not None


@dataclass(frozen=True, slots=True)
class Times:
    """How long a job waited and ran (seconds); None if it has not, or if that is not stored."""

    #: Of the last attempt that has ended.
    waited: float | None
    ran: float | None
    #: From when it was enqueued until it ended.
    total: float | None


@dataclass(frozen=True, slots=True)
class SharedError:
    """Errors of two jobs with the same cause."""

    #: 16 hexadecimal digits; None if it is not stored.
    fingerprint: str | None
    type: str
    message: str
    #: The numbers of attempts of each job that ended with it.
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class ComparedJob:
    """One of two jobs."""

    job: Job
    attempts: list[Attempt]
    times: Times
    #: The innermost frames of the application in its last traceback.
    frames: tuple[str, ...]
    #: The last lines of its last log.
    log: AttemptLog | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two jobs have in common, and what not."""

    a: ComparedJob
    b: ComparedJob
    #: None if they were not read.
    arguments: Differences | None
    facts: tuple[Fact, ...]
    errors: tuple[SharedError, ...]

    @property
    def itself(self) -> bool:
        """Whether both are one job."""
        return self.a.job.id == self.b.job.id

    @property
    def same_frames(self) -> bool:
        """Whether both have failed at the same place, or none has."""
        return self.a.frames == self.b.frames

    @property
    def same_log(self) -> bool:
        """Whether the last lines say the same, apart from their times."""
        return _entries_of(self.a.log) == _entries_of(self.b.log)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is stored of a job beside it."""

    #: Its own options, such as timeout and retry; None if it has ended.
    options: Mapping[str, Any] | None = None
    #: The node that ran its last attempt, and its version, as long as it is registered.
    node: str | None = None
    version: str | None = None
    #: The version that nodes had begun to run last when the attempt began.
    deployed: str | None = None


@dataclass(frozen=True, slots=True)
class LastSuccess:
    """What a search for the last success has found."""

    #: None if it has found none.
    job: int | None
    #: If it has stopped at its limit: pass it to continue, and when the last job was enqueued at which it has looked.
    cursor: int | None = None
    looked_back_to: datetime | None = None


class Comparisons(Statements):
    """The statement that reads the circumstances of jobs."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("comparison", schema)

    def read(self, database: Database, *jobs: Job) -> dict[int, Circumstances]:
        """Return the circumstances of jobs by id."""
        rows = self._records(
            database, "circumstances", dict[str, Any], ids=[job.id for job in jobs], nodes=[_node(job) for job in jobs],
            claimed=[None if job.claimed_at is None else job.claimed_at.timestamp() for job in jobs],
        )  # fmt: skip
        return {
            row["id"]: Circumstances(
                decode_object(row["overrides"] or "{}") if row["has_options"] else None, row["node"], row["version"],
                row["deployed"],
            )
            for row in rows
        }  # fmt: skip


def compare(
    a: Job, b: Job, *, circumstances: Mapping[int, Circumstances] | None = None,
    logs: Mapping[int, Sequence[AttemptLog]] | None = None, arguments: bool = True,
) -> Comparison:  # fmt: skip
    """Compare two jobs.

    circumstances, logs: by id, as far as they were read. arguments: False leaves the arguments out, for a user who may
    not see them; errors and logs are those of the jobs that are passed.
    """
    around, lines = circumstances or {}, logs or {}
    return Comparison(
        _compared(a, lines.get(a.id, ())), _compared(b, lines.get(b.id, ())),
        arguments=differences(a.args, b.args) if arguments else None,
        facts=tuple(_facts(a, b, around.get(a.id, Circumstances()), around.get(b.id, Circumstances()))),
        errors=_errors(a, b),
    )  # fmt: skip


def successes(job: Job) -> Filter:
    """Return the filter of the successful runs of the task of a job, in its queue."""
    hook = Term("by", (Value("hook"),), negated=not job.hook)
    named = (("task", job.task), ("queue", job.queue), ("state", JobState.COMPLETED.value))
    return Filter((*(Term(key, (Value(value),)) for key, value in named), hook))


def last_success(search: Search, job: Job, *, cursor: int | None = None, time_limit: float) -> LastSuccess:
    """Find the newest other job of the same task and queue that has succeeded.

    No index serves this: jobs are compared from the newest on, for a limited time; see `Search.page`.
    """
    page = search.page(successes(job), order=Order.NEWEST, cursor=cursor, limit=2, time_limit=time_limit)
    for found in page.jobs:
        if found.id != job.id:
            return LastSuccess(found.id)
    return LastSuccess(None, page.cursor, page.looked_back_to)


def _compared(job: Job, logs: Iterable[AttemptLog]) -> ComparedJob:
    attempts, kept = attempts_of(job), [log for log in logs if log.lines]
    frames = innermost_frames(str(job.errors[-1].get("traceback") or ""), MAX_FRAMES) if job.errors else ()
    last = kept[-1] if kept else None
    if last is not None and len(last.lines) > MAX_LINES:
        dropped = last.dropped + len(last.lines) - MAX_LINES
        last = replace(last, lines=last.lines[-MAX_LINES:], dropped=dropped)
    return ComparedJob(job, attempts, _times(job, attempts), frames, last)


def _times(job: Job, attempts: Iterable[Attempt]) -> Times:
    ended = [one for one in attempts if one.ended]
    total = None
    if job.finished_at is not None and job.enqueued_at is not None:
        total = max(0.0, (job.finished_at - job.enqueued_at).total_seconds())
    return Times(ended[-1].waited, ended[-1].ran, total) if ended else Times(None, None, total)


def _facts(a: Job, b: Job, around_a: Circumstances, around_b: Circumstances) -> Iterable[Fact]:
    facts_a, facts_b = _facts_of(a, around_a), _facts_of(b, around_b)
    found = (Fact(name, value, facts_b[name]) for name, value in facts_a.items())
    return (fact for fact in found if fact.known)


def _facts_of(job: Job, around: Circumstances) -> dict[str, Any]:
    meta, options = job.meta or {}, around.options
    group = job.errors[-1].get("group") if job.errors else None
    return {
        "state": job.state.value, "task": f"{job.task} (on_failure)" if job.hook else job.task, "queue": job.queue,
        "priority": job.priority, "tags": tuple(sorted(job.tags)), "attempt": job.attempt,
        "timeout": None if options is None else options.get("timeout", OF_THE_TASK),
        "retry": None if options is None else options.get("retry", OF_THE_TASK),
        "node": around.node or _node(job), "node_version": around.version, "deployed": around.deployed,
        "release": group.get("release") if isinstance(group, Mapping) else None,
        "cron": meta.get("cron"), "copy_of": meta.get("copy_of"),
    }  # fmt: skip


def _node(job: Job) -> int | None:
    """Return the node that ran its last attempt; the error of a failed job has it."""
    found = job.node
    if found is None and job.errors:
        found = job.errors[-1].get("node")
    return found if isinstance(found, int) and not isinstance(found, bool) and -(2**63) <= found < 2**63 else None


def _errors(a: Job, b: Job) -> tuple[SharedError, ...]:
    """Return the errors of both, those that they have in common first."""
    found: dict[tuple[Any, str], list[Any]] = {}
    for number, job in enumerate((a, b)):
        for record in job.errors:
            kind = str(record.get("type") or record.get("unreadable") or "")
            fingerprint = record.get("fingerprint")
            known = found.setdefault(
                (str(fingerprint) if fingerprint else None, kind), [str(record.get("message") or ""), 0, 0]
            )
            known[1 + number] += 1
    errors = [SharedError(key[0], key[1], *values) for key, values in found.items()]
    return tuple(sorted(errors, key=lambda error: not (error.a and error.b)))


def _entries_of(log: AttemptLog | None) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [] if log is None else [(line.level, line.event, line.fields) for line in log.lines]
