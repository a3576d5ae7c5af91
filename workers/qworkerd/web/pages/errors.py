"""The errors by group: how often each occurs, whether it is known, and what to do with its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial, reduce
from typing import Any

from flask import Blueprint
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from qworker.audit import AuditEntry
from qworker.error_groups import (
    STAT_DAYS,
    ErrorGroup,
    ErrorGroupNotFound,
    GroupState,
    bar_width,
)
from qworker.fingerprint import from_hex
from qworker.interval import Interval
from qworker.operations import Action
from qworker.statistics import PERIODS
from qworkerd.web import links, spans, texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import Done, action, page
from qworkerd.web.axes import Period
from qworkerd.web.charts import Chart, Mark, Series, stacked_bars
from qworkerd.web.exports import Paged
from qworkerd.web.failures import Failure, failure_of
from qworkerd.web.filtering import with_term
from qworkerd.web.job_rows import JobRow, rows_of
from qworkerd.web.mass import noted
from qworkerd.web.pages import Entry
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.spans import Span
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
    #: Only groups that occurred in this time, and its counts; instead of the period.
    interval: Interval | None
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
        title = texts.errors.BARS_THEN if self.interval else texts.errors.bars(self.shown)
        return sparkline(group.recent, title=title, kind="failed")

    def count(self, group: ErrorGroup) -> int:
        """Return how often a group has occurred: in the interval, or since it exists."""
        return sum(group.recent) if self.interval else group.count

    def url(self, group: ErrorGroup) -> str:
        """Return the address of a group, with the interval."""
        return links.to(f"/errors/{group.fingerprint}", **(self.span.parameters if self.interval else {}))

    @property
    def shown(self) -> str:
        """The period of the bars, unless an interval was chosen."""
        return self.period if self.period in BINS else "24h"

    @property
    def span(self) -> Span:
        """The time of the bars."""
        return Span(self.shown, self.interval)

    @property
    def terms(self) -> str:
        """The filter of the jobs of its task and queue."""
        named = [(key, value) for key, value in (("task", self.task), ("queue", self.queue)) if value]
        return reduce(lambda text, term: with_term(text, *term), named, "")

    @property
    def incomplete(self) -> bool:
        """Whether counts of the interval have been deleted."""
        return _incomplete(self.interval)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known = {name: getattr(self, name) for name in self.__slots__ if name != "interval"}
        if self.interval is None:
            return known
        step = bar_width(self.interval.seconds, BINS[self.shown])
        return known | self.span.parameters | {"period": self.period, "step": step, "incomplete": self.incomplete}


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """What the page of one group shows."""

    group: ErrorGroup
    #: The time of its chart.
    span: Span
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

    @property
    def incomplete(self) -> bool:
        """Whether counts of the interval have been deleted."""
        return _incomplete(self.span.interval)

    def chart(self) -> Chart:
        """Return how often the group has occurred, with what is known of its releases."""
        group, bars = self.group, len(self.group.recent)
        if self.span.interval:
            period = Period(self.span.interval.begin, bar_width(self.span.seconds, _bars(self.span)), bars)
        else:
            begin = datetime.now(UTC) - timedelta(seconds=self.span.seconds)
            period = Period(begin, self.span.seconds / bars, bars)
        events = [(group.first_seen, texts.errors.FIRST_SEEN_THEN), (group.reopened_at, texts.errors.OCCURRED_AGAIN)]
        marks = [Mark(at, name) for at, name in events if at is not None]
        return stacked_bars(
            period, [Series(texts.errors.LINE, group.recent, "failed")], title=texts.words.FAILED_ATTEMPTS, marks=marks
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known = {name: getattr(self, name) for name in self.__slots__ if name != "span"}
        return known | self.span.parameters | {"capped": self.capped, "incomplete": self.incomplete}


HEAD = (
    "fingerprint", "task", "type", "message", "frame", "state", "count", "first_seen", "last_seen", "first_release",
    "last_release", "queues",
)  # fmt: skip
#: The column of the counts in the interval, if one was chosen.
COUNT_THEN = "count_in_interval"


def table(data: ErrorList) -> tuple[Sequence[str], list[list[Any]]]:
    """Return the rows for a spreadsheet."""
    rows = [[getattr(group, name) for name in HEAD] for group in data.groups]
    if data.interval is None:
        return HEAD, rows
    return (*HEAD, COUNT_THEN), [[*row, data.count(group)] for row, group in zip(rows, data.groups, strict=True)]


@page(blueprint, "/errors", title=texts.words.ERRORS, table=Paged(table, lambda data: data.next))
def index(view: View) -> ErrorList:
    """Return the groups that occurred last."""
    given = view.parameters
    state = given.choice("state", (*GroupState, ALL), GroupState.OPEN)
    period, size = given.choice("period", BINS, ALL), given.page_size()
    task, queue = given.text("task"), given.text("queue")
    span, below = period if period in BINS else "24h", given.text("below") or None
    interval = spans.interval_of(given, Interval.of_errors)
    wanted = {
        "states": None if state == ALL else [state], "task": task or None, "queue": queue or None,
        "since": timedelta(seconds=PERIODS[period]) if period in BINS and interval is None else None,
        "period": timedelta(seconds=PERIODS[span]), "bins": BINS[span], "limit": size + 1,
        "below": below, "between": interval.times if interval else None,
    }  # fmt: skip
    key = ("errors.groups", state, period, interval, task, queue, size, below)
    try:
        groups = view.get(key, CURRENT, lambda: view.source.admin.error_groups(**wanted))
    except ValueError as error:
        raise InvalidParameter(texts.refusals.wrong("below", error)) from None
    following = groups[size - 1].cursor if len(groups) > size else None
    shown = _allowed(view, groups[:size])
    return ErrorList(str(state), period, interval, task, queue, size, shown, below, following, not view.may(PAYLOAD))


@page(blueprint, RULE, title=texts.errors.ERROR, template="error_group.html")
def show(view: View, fingerprint: str) -> ErrorPage:
    """Return everything about one group."""
    hidden = not view.may(PAYLOAD)
    period = view.parameters.choice("period", BINS, "24h")
    span = Span(period, spans.interval_of(view.parameters, Interval.of_errors))
    _check(fingerprint)
    try:
        found = view.get(
            ("errors.group", fingerprint, span), CURRENT, partial(_read, view, fingerprint, span), large=True
        )
    except ErrorGroupNotFound as error:
        raise NotFound(str(error)) from None
    if hidden:
        (group,) = _allowed(view, [found.group])
        samples = [replace(row, error=None) for row in found.samples]
        return replace(found, group=group, samples=samples, job=None, failure=None, hidden=True)
    return found


def _read(view: View, fingerprint: str, span: Span) -> ErrorPage:
    """Return what the page of a group shows to users who may see everything; viewers share it."""
    admin, period = view.source.admin, timedelta(seconds=PERIODS[span.period])
    group = admin.error_group(
        fingerprint, period=period, bins=_bars(span), between=span.interval.times if span.interval else None
    )
    wanted = admin.jobs_of_error_group(fingerprint)
    jobs = admin.show_many(group.samples)
    failed = admin.count_failed_of(fingerprint, MAX_FAILED)
    rows = rows_of(jobs, [], [], with_error=True)
    filters = [str(wanted.limited_to(action.states)) for action in Action]
    audit = admin.audit_of_error_group(fingerprint, filters, limit=MAX_ACTIONS)
    return ErrorPage(group, span, failed, str(wanted), rows, *_sample(jobs, group), audit, hidden=False)


def _bars(span: Span) -> int:
    """Return the number of bars of the chart of a group; at most this many of an interval."""
    return 2 * BINS[span.period]


def _incomplete(interval: Interval | None) -> bool:
    """Return whether counts of an interval have been deleted, because they are kept for a week."""
    return interval is not None and interval.begin < datetime.now(UTC) - timedelta(days=STAT_DAYS)


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
