"""The jobs: a list by a filter, whose state is in the address, and actions on some jobs or on all that match."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, current_app, g
from werkzeug.exceptions import Forbidden

from qworker.filters import KEYS, Filter
from qworker.job import JobState
from qworker.operations import Action
from qworker.search import Count, Order
from qworkerd.web import links, mass, texts
from qworkerd.web.access import PAYLOAD, VIEW
from qworkerd.web.ages import COUNTED, CURRENT, LIVE
from qworkerd.web.answers import Done, action, page
from qworkerd.web.exports import Paged
from qworkerd.web.filtering import (
    Wanted,
    argument_offers,
    completions,
    known_keys,
    nodes_of,
    pauses_of,
    wanted,
    with_term,
)
from qworkerd.web.job_rows import WAITING, JobRow, rows_of
from qworkerd.web.pages import Entry
from qworkerd.web.plain import as_json
from qworkerd.web.view import View

blueprint = Blueprint("jobs", __name__)
entry = Entry("jobs.index", texts.words.JOBS, "j")

#: The time of a search that no index serves, and of one that looks further (seconds).
QUICK, FAR = 0.08, 1.5
#: The time for counting what matches (seconds).
COUNT_TIME = 0.03
#: Views that everybody has: name, filter and order.
VIEWS = (
    (texts.words.ALL, "", "newest"),
    (texts.jobs.FAILED, "state:failed", "newest"),
    (texts.jobs.RUNNING, "state:running", "slowest"),
    (texts.jobs.RETRYING, "state:retrying", "newest"),
    (texts.jobs.SCHEDULED, "state:scheduled", "newest"),
    (texts.jobs.WAITING_LONG, "state:available wait:>5m", "oldest"),
    (texts.jobs.SLOW, "run:>30s", "slowest"),
)


@dataclass(frozen=True, slots=True)
class JobList:
    """What the page shows."""

    wanted: Wanted
    order: str
    #: Maximum number of rows.
    size: int
    #: The cursor of this page; None for the first one.
    below: int | None
    rows: list[JobRow]
    #: The cursor of the next page; None at the end.
    next: int | None
    #: If the search has stopped at its limit: when the last job was enqueued at which it has looked.
    looked_back_to: datetime | None
    #: Whether it has looked as far as one request may.
    far: bool
    #: None if the filter cannot be read.
    count: Count | None

    @property
    def age(self) -> float:
        """How old what the page shows may be (seconds)."""
        return _age(self.wanted, far=self.far)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        error = self.wanted.error
        return {
            "filter": self.wanted.text, "error": None if error is None else error.message,
            "position": None if error is None else len(error.before), "order": self.order, "jobs": self.rows,
            "next": self.next, "looked_back_to": self.looked_back_to, "unindexed": self.wanted.unindexed,
            "count": self.count,
        }  # fmt: skip


HEAD = (
    "id", "state", "queue", "task", "priority", "attempt", "enqueued_at", "run_at", "claimed_at", "finished_at",
    "duration", "tags", "error",
)  # fmt: skip


def table(data: JobList) -> tuple[Sequence[str], list[list[Any]]]:
    """Return the rows for a spreadsheet."""
    return HEAD, [[getattr(row, name) for name in HEAD] for row in data.rows]


@page(blueprint, "/jobs", title=texts.words.JOBS, table=Paged(table, lambda data: data.next))
def index(view: View) -> JobList:
    """Return one page of the jobs that match the filter."""
    found, order = wanted(view), view.parameters.choice("order", Order, Order.NEWEST)
    size, below, far = view.parameters.page_size(), view.parameters.number("below"), view.parameters.flag("far")
    more = view.parameters.flag("count")
    if found.filter is None:
        return JobList(found, order, size, below, [], None, None, far, None)
    searched = _searched(view, found, Order(order), below, size, far=far)
    rows = searched.rows
    if not view.may(PAYLOAD):
        rows = [replace(row, error=None) for row in rows]
    count = _count(view, found.filter, searched, below, further=more)
    return JobList(found, order, size, below, rows, searched.cursor, searched.looked_back_to, far, count)


@dataclass(frozen=True, slots=True)
class _Searched:
    """One page of a search: rows instead of jobs, whose arguments viewers need not share."""

    rows: list[JobRow]
    cursor: int | None
    looked_back_to: datetime | None


def _age(wanted: Wanted, *, far: bool) -> float:
    """Return how old a list may be: the longer it takes, the older."""
    if far:
        return COUNTED
    return CURRENT if wanted.unindexed else LIVE


def _searched(view: View, wanted: Wanted, order: Order, below: int | None, size: int, *, far: bool) -> _Searched:
    found = wanted.filter
    assert found is not None  # noqa: S101

    def search() -> _Searched:
        limit = FAR if far else QUICK
        page = view.source.search.page(found, order=order, cursor=below, limit=size, time_limit=limit)
        running = any(job.state is JobState.RUNNING for job in page.jobs)
        waiting = any(job.state in WAITING for job in page.jobs)
        pauses = pauses_of(view) if waiting else []
        rows = rows_of(page.jobs, nodes_of(view) if running else [], pauses, with_error=True)
        return _Searched(rows, page.cursor, page.looked_back_to)

    return view.get(("jobs.list", str(found), order, below, size, far), _age(wanted, far=far), search)


def _count(view: View, wanted: Filter, searched: _Searched, below: int | None, *, further: bool) -> Count:
    """Return how many jobs match, as far as can be said at once; more is counted on request."""
    if below is None and searched.cursor is None:
        return Count(len(searched.rows), exact=True)
    return view.get(
        ("jobs.count", str(wanted), further), COUNTED if further else CURRENT,
        lambda: view.source.search.count(wanted, time_limit=FAR if further else COUNT_TIME),
    )  # fmt: skip


@blueprint.get("/jobs/completions.json")
def complete() -> Response:
    """Answer with what can complete a filter."""
    view: View = g.view
    if not view.may(VIEW):
        raise Forbidden(texts.refusals.no_right_to_see(VIEW))
    return Response(as_json(completions(view)), mimetype="application/json")


@blueprint.get("/jobs/arguments.json")
def complete_argument() -> Response:
    """Answer with what can complete a term that compares arguments."""
    view: View = g.view
    if not view.may(VIEW):
        raise Forbidden(texts.refusals.no_right_to_see(VIEW))
    return Response(as_json({"offers": argument_offers(view)}), mimetype="application/json")


def _register(kind: Action) -> None:
    def act(view: View) -> Done:
        return mass.change(view, kind, view.ids())

    act.__name__ = f"act_{kind}"
    action(blueprint, f"/jobs/{kind.value}", right=f"job.{kind.value}", once=kind is Action.AGAIN)(act)

    def operate(view: View) -> Done:
        operation = mass.create(view, kind)
        return Done(texts.jobs.created(operation.id), to=links.operation(operation.id), result=operation)

    operate.__name__ = f"operate_{kind}"
    action(blueprint, f"/jobs/all/{kind.value}", right=f"job.{kind.value}", once=True)(operate)


for each in Action:
    _register(each)


@blueprint.app_context_processor
def known_to_templates() -> dict[str, Any]:
    """Return what the templates of jobs and errors call."""
    return {
        "parts": current_app.jinja_env.get_template("job_parts.html").module,
        "views": VIEWS,
        "filter_keys": KEYS.values(),
    }


blueprint.add_app_template_global(with_term)
blueprint.add_app_template_global(known_keys)


@blueprint.app_template_global()
def mass_rights(view: View) -> bool:
    """Return whether the user may do anything with jobs."""
    return any(view.may(f"job.{each.value}") for each in Action)


@page(blueprint, "/jobs/all", title=texts.jobs.ALL_MATCHING, template="jobs_all.html")
def all_matching(view: View) -> mass.Plan:
    """Return what an operation on all jobs that match would do."""
    kind = view.parameters.choice("action", Action, Action.RETRY)
    return mass.plan(view, Action(kind), wanted(view))
