"""The errors by group: how often each occurs, whether it is known, and what to do with its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flask import Blueprint, url_for
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from qworker.audit import AuditEntry
from qworker.error_groups import ErrorGroup, ErrorGroupNotFound, GroupState
from qworker.fingerprint import from_hex
from qworker.operations import Action
from qworker.statistics import PERIODS
from qworkerd.web import texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import Done, action, page
from qworkerd.web.axes import Period
from qworkerd.web.charts import Chart, Mark, Series, stacked_bars
from qworkerd.web.exports import Paged
from qworkerd.web.failures import Failure, failure_of
from qworkerd.web.job_rows import JobRow, rows_of
from qworkerd.web.mass import noted
from qworkerd.web.pages import Entry
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.sparklines import sparkline
from qworkerd.web.view import View

blueprint = Blueprint("errors", __name__)
entry = Entry("errors.index", texts.words.ERRORS, "e")

#: Counts of groups are kept for seven days, in parts of ten minutes: the periods, and the number of bars of each.
BINS: Mapping[str, int] = {"1h": 6, "24h": 24, "7d": 28}
#: Failed jobs of a group that are counted on its page.
MAX_FAILED = 1_000
#: Entries of the audit on the page of a group.
MAX_ACTIONS = 10
#: The choice of all groups, whatever their state.
ALL = "all"
RULE = "/errors/<string(length=16):fingerprint>"


@dataclass(frozen=True, slots=True)
class ErrorList:
    """What the page of all groups shows."""

    #: open, muted, resolved or all.
    state: str
    #: Only groups that occurred within this time: a key of BINS, or all.
    period: str
    task: str
    queue: str
    size: int
    groups: list[ErrorGroup]
    #: The cursor of this page, and that of the next one; None for the first and after the last.
    below: str | None
    next: str | None
    #: Whether messages are left out, because the user may not see them.
    hidden: bool

    def bars(self, group: ErrorGroup) -> Markup:
        """Return how often a group has occurred."""
        return sparkline(group.recent, title=texts.errors.bars(self.span), kind="failed")

    @property
    def span(self) -> str:
        """The time of the bars."""
        return self.period if self.period in BINS else "24h"


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """What the page of one group shows."""

    group: ErrorGroup
    period: str
    #: Its jobs that are failed now, counted up to MAX_FAILED.
    failed: int
    #: The filter of its jobs.
    filter: str
    #: Its last jobs, as far as they are still stored.
    samples: list[JobRow]
    #: The newest of them that has an error of this group, and that error.
    job: int | None
    failure: Failure | None
    #: What was done to the group, and to all its jobs as an operation, newest first.
    audit: list[AuditEntry]
    hidden: bool

    @property
    def capped(self) -> bool:
        """Whether there may be more failed jobs than were counted."""
        return self.failed >= MAX_FAILED

    def chart(self) -> Chart:
        """Return how often the group has occurred, with what is known of its releases."""
        seconds, group = PERIODS[self.period], self.group
        step = seconds / len(group.recent)
        now = datetime.now(UTC)
        period = Period(now - timedelta(seconds=seconds), step, len(group.recent))
        events = [(group.first_seen, texts.errors.FIRST_SEEN_THEN), (group.reopened_at, texts.errors.OCCURRED_AGAIN)]
        marks = [Mark(at, name) for at, name in events if at is not None]
        return stacked_bars(
            period, [Series(texts.errors.LINE, group.recent, "failed")], title=texts.words.FAILED_ATTEMPTS, marks=marks
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return {name: getattr(self, name) for name in self.__slots__} | {"capped": self.capped}


HEAD = (
    "fingerprint", "task", "type", "message", "frame", "state", "count", "first_seen", "last_seen", "first_release",
    "last_release", "queues",
)  # fmt: skip


def table(data: ErrorList) -> tuple[Sequence[str], list[list[Any]]]:
    """Return the rows for a spreadsheet."""
    return HEAD, [[getattr(group, name) for name in HEAD] for group in data.groups]


@page(blueprint, "/errors", title=texts.words.ERRORS, table=Paged(table, lambda data: data.next))
def index(view: View) -> ErrorList:
    """Return the groups that occurred last."""
    given = view.parameters
    state = given.choice("state", (*GroupState, ALL), GroupState.OPEN)
    period, size = given.choice("period", BINS, ALL), given.page_size()
    task, queue = given.text("task"), given.text("queue")
    span, below = period if period in BINS else "24h", given.text("below") or None
    wanted = {
        "states": None if state == ALL else [state], "task": task or None, "queue": queue or None,
        "since": timedelta(seconds=PERIODS[period]) if period in BINS else None,
        "period": timedelta(seconds=PERIODS[span]), "bins": BINS[span], "limit": size + 1,
        "below": below,
    }  # fmt: skip
    key = ("errors.groups", state, period, task, queue, size, below)
    try:
        groups = view.get(key, CURRENT, lambda: view.source.admin.error_groups(**wanted))
    except ValueError as error:
        raise InvalidParameter(texts.refusals.wrong("below", error)) from None
    following = groups[size - 1].cursor if len(groups) > size else None
    shown = _allowed(view, groups[:size])
    return ErrorList(str(state), period, task, queue, size, shown, below, following, not view.may(PAYLOAD))


@page(blueprint, RULE, title=texts.errors.ERROR, template="error_group.html")
def show(view: View, fingerprint: str) -> ErrorPage:
    """Return everything about one group."""
    hidden = not view.may(PAYLOAD)
    period = view.parameters.choice("period", BINS, "24h")
    _check(fingerprint)
    try:
        found = view.get(
            ("errors.group", fingerprint, period), CURRENT, partial(_read, view, fingerprint, period), large=True
        )
    except ErrorGroupNotFound as error:
        raise NotFound(str(error)) from None
    if hidden:
        (group,) = _allowed(view, [found.group])
        samples = [replace(row, error=None) for row in found.samples]
        return replace(found, group=group, samples=samples, job=None, failure=None, hidden=True)
    return found


def _read(view: View, fingerprint: str, period: str) -> ErrorPage:
    """Return what the page of a group shows to users who may see everything; viewers share it."""
    admin = view.source.admin
    group = admin.error_group(fingerprint, period=timedelta(seconds=PERIODS[period]), bins=2 * BINS[period])
    wanted = admin.jobs_of_error_group(fingerprint)
    jobs = admin.show_many(group.samples)
    failed = admin.count_failed_of(fingerprint, MAX_FAILED)
    rows = rows_of(jobs, [], [], with_error=True)
    filters = [str(wanted.limited_to(action.states)) for action in Action]
    audit = admin.audit_of_error_group(fingerprint, filters, limit=MAX_ACTIONS)
    return ErrorPage(group, period, failed, str(wanted), rows, *_sample(jobs, group), audit, hidden=False)


def _check(fingerprint: str) -> None:
    try:
        from_hex(fingerprint)
    except ValueError as error:
        raise NotFound(str(error)) from None


def _allowed(view: View, groups: list[ErrorGroup]) -> list[ErrorGroup]:
    """Return the groups without their messages if the user may not see what jobs hold."""
    if view.may(PAYLOAD):
        return groups
    names = ErrorGroup.__dataclass_fields__
    return [ErrorGroup(**{name: getattr(group, name) for name in names} | {"message": None}) for group in groups]


def _sample(jobs: Sequence[Any], group: ErrorGroup) -> tuple[int | None, Failure | None]:
    """Return the newest job whose error of the group is still stored, and that error."""
    for job in jobs:
        for record in reversed(job.errors):
            if record.get("fingerprint") == group.fingerprint:
                return job.id, failure_of(record)
    # A group without message has errors with many fingerprints.
    return next(((job.id, failure_of(job.errors[-1])) for job in jobs if job.errors), (None, None))


def _register(name: str, state: GroupState) -> None:
    def change(view: View, fingerprint: str) -> Done:
        _check(fingerprint)
        with noted(view):
            changed = view.source.acting.change_error_group(fingerprint, state)
        text = texts.errors.changed(state.value, before=not changed)
        return Done(text, result={"fingerprint": fingerprint, "state": state}, changed=changed)

    change.__name__ = name
    action(blueprint, f"{RULE}/{name}", right=f"error.{name}")(change)


_register("mute", GroupState.MUTED)
_register("resolve", GroupState.RESOLVED)
_register("reopen", GroupState.OPEN)


@blueprint.app_template_global()
def group_url(group: ErrorGroup) -> str:
    """Return the address of a group."""
    return url_for("errors.show", fingerprint=group.fingerprint)
