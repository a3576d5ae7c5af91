"""One job: its attempts, errors, logs and stack, why it does not run, what was done to it, and what can be done."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from flask import Blueprint, Response, render_template, url_for
from markupsafe import Markup

from qworker.attempts import Attempt, attempts_of
from qworker.audit import AuditEntry
from qworker.explanation import Explanations
from qworker.job import Job, JobState
from qworker.job_logs import AttemptLog, JobLogs, logs_of, merge
from qworker.operations import Action
from qworker.reasons import NEEDS_ACTION, Explanation, Reason
from qworker.stacks import StackUnavailable
from qworker.statistics import Statistics
from qworker.typical import TypicalTimes, typical_times
from qworkerd.web import mass, texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import CURRENT, LIVE
from qworkerd.web.answers import Done, action, page, region, wants_json
from qworkerd.web.arguments import as_text, edited
from qworkerd.web.failures import Failure, failure_of
from qworkerd.web.filtering import nodes_of, pauses_of
from qworkerd.web.job_rows import JobRow, rows_of
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.plain import as_json
from qworkerd.web.timeline import bars
from qworkerd.web.view import View

blueprint = Blueprint("job", __name__)

#: The path of a job: a number of 64 bits.
RULE = "/jobs/<int(max=9223372036854775807):number>"
#: Entries of the audit, and jobs that hold the same unique key.
MAX_ACTIONS, MAX_HOLDERS = 50, 10
#: Seconds to wait for the stacks of a worker, and requests that wait at the same time.
STACK_TIMEOUT, STACK_REQUESTS = 5.0, 3
#: The address of a trace: https://tracing.example.com/trace/{trace_id}.
TRACE_URL = "QWORKER_TRACE_URL"
_stack_requests = threading.BoundedSemaphore(STACK_REQUESTS)


@dataclass(frozen=True, slots=True)
class JobPage:
    """What the page shows."""

    job: Job
    row: JobRow
    explanation: Explanation
    attempts: list[Attempt]
    logs: list[AttemptLog]
    #: What was done to it by hand, newest first; None if the role of the dashboard may not read the audit.
    audit: list[AuditEntry] | None
    #: Other jobs that hold the same unique key, as one of other tasks may.
    holders: list[Job]
    #: The ids of its traces, newest first, and their addresses if these are known.
    traces: Mapping[str, str | None]
    #: How long attempts of its task in its queue usually wait and run; None if none of its own has ended.
    typical: TypicalTimes | None
    #: Whether arguments, results, errors and logs are left out, because the user may not see them.
    hidden: bool

    @property
    def age(self) -> float:
        """How old what the page shows may be (seconds)."""
        return _age(self.job)

    @property
    def actions(self) -> list[Action]:
        """What can be done with a job in its state."""
        return [
            each for each in Action if self.job.state in each.states and not (each is Action.AGAIN and self.job.hook)
        ]

    @property
    def timeline(self) -> list[tuple[Attempt, Markup]]:
        """The attempts, each with its bar, newest first."""
        return list(zip(self.attempts, bars(self.attempts), strict=True))[::-1]

    @property
    def against(self) -> list[dict[str, float | None]]:
        """How many times the median each attempt has waited and run, in the order of the attempts."""
        wait, run = (self.typical.wait, self.typical.run) if self.typical else (None, None)
        return [
            {
                "wait": wait.ratio(attempt.waited) if wait and attempt.ended else None,
                "run": run.ratio(attempt.ran) if run and attempt.ended else None,
            }
            for attempt in self.attempts
        ]

    @property
    def reasons(self) -> list[tuple[Reason, Mapping[str, Any]]]:
        """The reasons with their evidence, without the tracebacks and logs that the page shows anyway."""
        return [(reason, _brief(reason.evidence)) for reason in self.explanation.reasons]

    @property
    def failures(self) -> list[Failure]:
        """The errors of the attempts, newest first."""
        return [failure_of(record) for record in reversed(self.job.errors)]

    @property
    def doing(self) -> str:
        """What the handler has reported with its progress."""
        return str((self.job.progress or {}).get("text") or "")

    @property
    def origin(self) -> Mapping[str, Any]:
        """The schedule that enqueued it, and the job of which it is a copy."""
        meta = self.job.meta or {}
        return {name: meta[name] for name in ("cron", "copy_of") if name in meta}

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return {
            "job": replace(self.job, duplicate=False), "reasons": self.explanation.reasons,
            "position": self.explanation.position, "attempts": self.attempts, "logs": self.logs, "audit": self.audit,
            "traces": self.traces, "hidden": self.hidden, "actions": self.actions, "typical": self.typical,
            "against": self.against,
            "node": self.row.node, "pid": self.row.pid, "since": self.row.since,
        }  # fmt: skip


@page(blueprint, RULE, title=texts.words.JOB)
def show(view: View, number: int) -> JobPage:
    """Return everything about a job."""
    hidden = not view.may(PAYLOAD)
    job, explanation, stored = read(view, number)
    logs = [] if hidden else [log for log in stored if log.lines]
    nodes = nodes_of(view) if job.state is JobState.RUNNING else []
    pauses = [] if job.finished else pauses_of(view)
    traces = _traces(job)
    if hidden:
        job, explanation = without_payload(job), Explanation(job, (), explanation.position)
    (row,) = rows_of([job], nodes, pauses, with_error=not hidden)
    audit = view.get(("job.audit", number), _age(job), partial(_audit, view, number))
    attempts, holders = attempts_of(job), _holders(view, explanation)
    typical = typical_of(view, job) if any(attempt.ended for attempt in attempts) else None
    return JobPage(job, row, explanation, attempts, logs, audit, holders, traces, typical, hidden)


def read(view: View, number: int) -> tuple[Job, Explanation, list[AttemptLog]]:
    """Return a job, why it does not run, and its logs; viewers share them."""
    return view.get(("job", number), lambda found: _age(found[0]), partial(_read, view, number), large=True)


def typical_of(view: View, job: Job) -> TypicalTimes:
    """Return how long attempts of the task of a job usually wait and run in its queue."""
    statistics = Statistics(view.source.schema)
    return view.share_counts(
        ("job.typical", job.queue, job.task), lambda conn: typical_times(conn, statistics, job.queue, job.task)
    )


def _age(job: Job) -> float:
    """Return how old the answer about a job may be: one that has ended changes by an action alone."""
    return CURRENT if job.finished else LIVE


def _read(view: View, number: int) -> tuple[Job, Explanation, list[AttemptLog]]:
    schema, job = view.source.schema, view.source.admin.get(number, None)
    # Each request has one connection at a time: of two, both could wait for the second one of the other.
    with view.database() as conn:
        explanation = Explanations(schema).explain(conn, job)
        return job, explanation, merge(logs_of(job), JobLogs(schema).stored(conn, number))


def _brief(evidence: Mapping[str, Any]) -> dict[str, Any]:
    def part(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: each for name, each in value.items() if name not in {"traceback", "logs", "logs_dropped"}}

    return {name: part(value) for name, value in evidence.items()}


def without_payload(job: Job) -> Job:
    """Return a job without what may hold personal data; of its errors remain type, time and fingerprint."""
    kept = ("at", "attempt", "type", "cause", "fingerprint", "ran", "phase")
    errors = tuple({name: record[name] for name in kept if name in record} for record in job.errors)
    return replace(job, args={}, result=None, progress=None, errors=errors, meta=None)


def _audit(view: View, number: int) -> list[AuditEntry] | None:
    try:
        return view.source.admin.audit(job=number, limit=MAX_ACTIONS)
    except psycopg.errors.InsufficientPrivilege:
        return None


def _holders(view: View, explanation: Explanation) -> list[Job]:
    """Return other jobs with the unique key of this one."""
    keys = [reason.evidence.get("key") for reason in explanation.reasons if reason.cause == "holds_key"]
    if not keys or not isinstance(keys[0], str):
        return []
    read = partial(view.source.admin.find, unique=keys[0], limit=MAX_HOLDERS + 1, conn=None)
    found = view.get(("job.holders", keys[0]), LIVE, read, large=True)
    return [job for job in found if job.id != explanation.job.id][:MAX_HOLDERS]


def _traces(job: Job) -> dict[str, str | None]:
    """Return the traces of the attempts and of the enqueueing code, from their `traceparent`."""
    template, found = os.environ.get(TRACE_URL, ""), dict[str, str | None]()
    for holder in [*reversed(job.errors), job.meta or {}]:
        parts = str(holder.get("traceparent") or "").split("-")
        if len(parts) == 4 and len(parts[1]) == 32 and parts[1].isalnum() and parts[1].isascii():  # noqa: PLR2004
            usable = template.startswith(("https://", "http://"))
            found[parts[1]] = template.replace("{trace_id}", parts[1]) if usable else None
    return found


def _register(kind: Action) -> None:
    def act(view: View, number: int) -> Done:
        if kind is Action.RETRY and (text := view.form.text("args", longest=1_000_000)):
            return _retry_edited(view, number, text)
        done = mass.change(view, kind, [number])
        if kind is Action.AGAIN and done.changed:
            copy = int(next(iter(done.result["changed"].values())))
            return replace(done, message=texts.job.copied(copy, number), to=url_for("job.show", number=copy))
        return done

    act.__name__ = f"act_{kind}"
    action(blueprint, f"{RULE}/{kind.value}", right=f"job.{kind.value}", once=kind is Action.AGAIN)(act)


for each in Action:
    _register(each)


def _retry_edited(view: View, number: int, text: str) -> Done:
    """Retry a job with other arguments."""
    if not view.may(PAYLOAD) or not view.may("job.edit"):
        raise InvalidParameter(texts.refusals.NO_RIGHT_TO_EDIT)
    job = view.source.acting.get(number, None)
    args = edited(view.app, job, text)
    with mass.noted(view):
        changed = view.source.acting.retry(number, args=args)
    return Done(
        texts.job.retried_edited(number) if changed
        else texts.job.not_retried(number, job.state.value, texts.actions.RULES["retry"]),
        result={"changed": changed}, changed=bool(changed),
    )  # fmt: skip


def stack(view: View, number: int) -> Done | Response:
    """Answer with the stacks of the worker that runs a job."""
    if not view.may(PAYLOAD):
        raise InvalidParameter(texts.refusals.NO_RIGHT_TO_STACK)
    if not _stack_requests.acquire(blocking=False):
        raise StackUnavailable(texts.refusals.stacks_busy(STACK_REQUESTS))
    try:
        found = view.source.acting.stack(number, timeout=STACK_TIMEOUT)
    finally:
        _stack_requests.release()
    if wants_json():
        return Response(as_json(found), mimetype="application/json")
    return render("job_stack.html", {"data": found, "view": view, "title": texts.job.STACK_OF.format(number=number)})


action(blueprint, f"{RULE}/stack", right="job.stack")(stack)


def log(view: View, number: int) -> Done | Response:
    """Answer with the lines of a job, also of the attempt that runs; its node is asked for them."""
    if not view.may(PAYLOAD):
        raise InvalidParameter(texts.refusals.NO_RIGHT_TO_LOG)
    found = view.source.acting.lines_after(number, view.form.text("cursor", longest=40) or None, follow=True)
    if wants_json():
        return Response(as_json(found), mimetype="application/json")
    context = {"data": found, "view": view, "title": texts.job.LOG_OF.format(number=number)}
    return region("job_log.html", view.region, context) if view.region else render("job_log.html", context)


action(blueprint, f"{RULE}/log", right="job.log")(log)


def render(template: str, context: Mapping[str, Any]) -> Response:
    """Return a page that is the answer to a form."""
    return Response(render_template(template, **context))


blueprint.add_app_template_filter(as_text, "json_text")


@blueprint.app_template_test("needs_action")
def needs_action(cause: str) -> bool:
    """Return whether a reason does not end by itself."""
    return cause in NEEDS_ACTION
