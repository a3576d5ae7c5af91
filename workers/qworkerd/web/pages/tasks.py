"""The tasks: what each does, its options and numbers, and a form of its signature that enqueues a job."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any

from flask import Blueprint, Response, make_response, render_template
from werkzeug.exceptions import NotFound

from qworker.audit import Audit
from qworker.counts import Counts, total
from qworker.descriptions import TaskDescription, describe
from qworker.errors import InvalidOperation
from qworker.form_fields import Field
from qworker.forms import WHOLE, Submission, TaskForm
from qworker.options import check_queue
from qworker.schedules import once_options
from qworker.statistics import Deployment, Point, SeriesCounts, Statistics
from qworker.status import ScheduleStatus
from qworkerd.web import links, texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import COUNTED
from qworkerd.web.answers import Done, action, page, wants_json
from qworkerd.web.charts import Chart
from qworkerd.web.narrowing import Narrowed, narrow
from qworkerd.web.pages import Entry
from qworkerd.web.plain import as_json
from qworkerd.web.spans import Span
from qworkerd.web.trends import trends
from qworkerd.web.view import View, digest

blueprint = Blueprint("tasks", __name__)
entry = Entry("tasks.index", texts.words.TASKS, "t")

#: The longest delay that the form takes (seconds): a year.
MAX_DELAY = 31_536_000
#: Begins the names of the fields of arguments, beside those of the options.
ARGUMENT = "arg."


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task of the application, or one that was counted or has a schedule."""

    name: str
    #: None if the application is not known, or does not have the task.
    description: TaskDescription | None
    #: The queues in which it was counted, and its own.
    queues: Sequence[str]
    counts: Counts
    #: The names of its schedules.
    schedules: Sequence[str]


@dataclass(frozen=True, slots=True)
class TasksData:
    """What the page of all tasks shows."""

    tasks: Narrowed[TaskRow]
    span: Span
    #: Whether the dashboard has the application, which alone knows docstrings, signatures and options.
    with_application: bool

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return self.span.parameters | {"tasks": self.tasks, "with_application": self.with_application}


@dataclass(frozen=True, slots=True)
class Entered:
    """What was written into the form, with what is wrong with it."""

    texts: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskData:
    """What the page of one task shows."""

    name: str
    span: Span
    description: TaskDescription | None
    with_application: bool
    counts: Counts
    queues: Sequence[SeriesCounts]
    points: Sequence[Point]
    deployments: Sequence[Deployment]
    schedules: Sequence[ScheduleStatus]
    #: The fields of the form; None if the application does not have the task.
    fields: Sequence[Field] | None
    entered: Entered = field(default_factory=Entered)

    def charts(self) -> dict[str, Chart]:
        """Return the charts of the page."""
        return trends(self.span.slots(), self.points, self.deployments)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known = {name: getattr(self, name) for name in self.__slots__ if name not in {"entered", "span"}}
        return {"seconds": self.span.seconds} | self.span.parameters | known


@page(blueprint, "/tasks", title=texts.words.TASKS, table=lambda data: table(data.tasks.lines))
def index(view: View) -> TasksData:
    """Return the tasks of the application, and all others that the database knows."""
    span, statistics = view.span(), Statistics(view.source.schema)
    counted = view.share_counts(
        ("tasks.counts", span), lambda conn: statistics.tasks(conn, span.seconds, until=span.until)
    )
    found = narrow(_rows(view, counted), lambda row: row.name, view.parameters.text("find"))
    return TasksData(found, span, view.app is not None)


@page(blueprint, "/task", title=texts.tasks.TASK, template="task.html")
def show(view: View) -> TaskData:
    """Return everything about one task. `job`: the form has the arguments of this job."""
    name, source = view.parameters.exact("name"), view.parameters.number("job", least=1)
    data = _data(view, name)
    if source is None or data.fields is None or not view.may(PAYLOAD):
        return data
    job = view.get(("task.job", source), COUNTED, lambda: view.source.admin.show(source), large=True)
    if job.task != data.name:
        raise NotFound(texts.refusals.other_task(source, job.task, data.name))
    return _with_entered(data, Entered(_form(view, data.name).texts(job.args)))


@action(blueprint, "/task/enqueue", right="job.enqueue")
def enqueue(view: View) -> Done | Response:
    """Enqueue a job with the arguments of the form, or show the form again with what is wrong."""
    name = view.form.exact("name")
    form = _form(view, name)
    given = {one: _sent(view, one) for one in (WHOLE, *(field.name for field in form.fields))}
    submission = form.read({one: text for one, text in given.items() if text is not None})
    problems = dict(submission.problems)
    try:
        options = _options(view)
    except ValueError as error:
        problems[""] = "; ".join(filter(None, [problems.get(""), str(error)]))
        options = {}
    if problems:
        return _refused(view, name, submission, problems)
    task = view.app.get_task(name) if view.app else None
    assert task is not None  # noqa: S101 - or there would be no form
    # A form that is sent twice enqueues one job; sent again with other arguments or options, it is another form.
    once = once_options(task.defaults, digest(view.form.text("key") or token_urlsafe(), given, options))
    if once.unique:
        options |= {"unique": once.unique, "unique_for": once.unique_for}
    with view.writing() as conn, conn.transaction():
        job = task.options(**options).using(conn).enqueue(*submission.args, **submission.kwargs)
        if not job.duplicate:
            Audit(view.source.schema).record(conn, "job.enqueue", {"jobs": [job.id], "task": name}, 1)
    if job.duplicate:
        return Done(
            texts.tasks.held(job.id), to=links.job(job.id), result={"job": job.id, "duplicate": True}, changed=False
        )
    return Done(texts.tasks.enqueued(job.id), to=links.job(job.id), result={"job": job.id, "duplicate": False})


def table(tasks: Iterable[TaskRow]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the tasks for a spreadsheet; durations are in seconds."""
    head = ("task", "queues", "summary", "attempts", "succeeded", "failed", "failure_ratio", "wait_p95", "run_p50",
            "run_p95", "schedules")  # fmt: skip
    return head, (
        (row.name, ", ".join(row.queues), row.description.summary if row.description else None, row.counts.attempts,
         row.counts.succeeded, row.counts.failed, row.counts.failure_ratio, row.counts.wait.quantile(0.95),
         row.counts.run.quantile(0.5), row.counts.run.quantile(0.95), ", ".join(row.schedules))
        for row in tasks
    )  # fmt: skip


def _rows(view: View, counted: Iterable[SeriesCounts]) -> list[TaskRow]:
    app, statistics = view.app, Statistics(view.source.schema)
    by_task: dict[str, list[SeriesCounts]] = {}
    for one in counted:
        by_task.setdefault(str(one.task), []).append(one)
    schedules: dict[str, list[str]] = {}
    for status in _schedules(view):
        schedules.setdefault(status.task, []).append(status.name)
    named = {task for _, task in view.share_counts("series", statistics.names)}
    tasks = {} if app is None else app.tasks
    rows = []
    for name in sorted({*tasks, *by_task, *schedules, *named}):
        description = describe(tasks[name], app.schedules) if app is not None and name in tasks else None
        found = by_task.get(name, [])
        queues = {one.queue for one in found} | ({description.queue} if description else set())
        counts = total(one.counts for one in found)
        rows.append(TaskRow(name, description, sorted(queues), counts, schedules.get(name, ())))
    return rows


def _data(view: View, name: str) -> TaskData:
    span, statistics, app = view.span(), Statistics(view.source.schema), view.app
    seconds, until = span.seconds, span.until

    def share(key: str, make: Callable[[Any], Any]) -> Any:
        return view.share_counts((f"task.{key}", name, span), make)

    queues = share("queues", lambda conn: statistics.tasks(conn, seconds, until=until, task=name))
    schedules = [status for status in _schedules(view) if status.task == name]
    task = None if app is None else app.tasks.get(name)
    if task is None and not queues and not schedules and name not in {
        known for _, known in view.share_counts("series", statistics.names)
    }:  # fmt: skip
        raise NotFound(texts.refusals.no_task(name, with_application=app is not None))
    return TaskData(
        name, span, describe(task, app.schedules) if task and app else None, app is not None,
        total(one.counts for one in queues), queues,
        share("points", lambda conn: statistics.chart(conn, seconds, span.step, until=until, task=name)),
        view.share_counts(("deployments", span), lambda conn: statistics.deployments(conn, seconds, until=until)),
        schedules, TaskForm(task).fields if task else None,
    )  # fmt: skip


def _schedules(view: View) -> list[ScheduleStatus]:
    return view.get("schedules", COUNTED, view.source.admin.schedules)


def _form(view: View, name: str) -> TaskForm:
    task = None if view.app is None else view.app.tasks.get(name)
    if task is None:
        raise InvalidOperation(texts.refusals.task_not_enqueued(name))
    return TaskForm(task)


def _sent(view: View, name: str) -> str | None:
    return view.form.raw(f"{ARGUMENT}{name}")


def _options(view: View) -> dict[str, Any]:
    """Return the options of the form, checked by themselves; raises ValueError."""
    options: dict[str, Any] = {}
    if queue := view.form.text("queue"):
        options["queue"] = check_queue("queue", queue)
    priority = view.form.number("priority", most=9)
    delay = view.form.number("delay", most=MAX_DELAY)
    if priority is not None:
        options["priority"] = priority
    if delay:
        options["delay"] = delay
    return options


def _refused(view: View, name: str, submission: Submission, problems: Mapping[str, str]) -> Response:
    if wants_json():
        body = {"error": texts.tasks.INVALID, "problems": problems}
        return Response(as_json(body), status=422, mimetype="application/json")
    options = {f"option.{one}": view.form.text(one) for one in ("queue", "priority", "delay")}
    data = _with_entered(_data(view, name), Entered({**submission.texts, **options}, problems))
    return make_response(render_template("task.html", data=data, view=view, title=texts.tasks.TASK), 422)


def _with_entered(data: TaskData, entered: Entered) -> TaskData:
    known = {name: getattr(data, name) for name in data.__slots__ if name != "entered"}
    return TaskData(**known, entered=entered)
