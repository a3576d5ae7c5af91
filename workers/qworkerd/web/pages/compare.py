"""Two jobs side by side: what differs in arguments, options, attempts, errors and logs. What is equal is folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from markupsafe import Markup

from qworker import comparison
from qworker.attempts import Attempt
from qworker.comparison import ComparedJob, Comparison, Comparisons, LastSuccess
from qworker.differences import Difference
from qworker.filters.model import written_path
from qworker.job import Job
from qworker.typical import TypicalTimes
from qworkerd.log.pairs import masked_differences, side_by_side
from qworkerd.web import texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import COUNTED, CURRENT, LIVE
from qworkerd.web.answers import page, wants_json
from qworkerd.web.failures import FINGERPRINT
from qworkerd.web.pages.job import read, typical_of, without_payload
from qworkerd.web.pages.jobs import FAR, QUICK
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.timeline import bars, length
from qworkerd.web.view import View

blueprint = Blueprint("compare", __name__)

#: The jobs that are compared.
BOTH = 2


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A difference of the arguments as the page shows it."""

    #: As in a filter: user.id.
    path: str
    #: JSON in one line, masked and cut; None if it is missing.
    a: str | None
    b: str | None

    @property
    def masked(self) -> bool:
        """Whether they differ in what is not shown."""
        return self.a == self.b


@dataclass(frozen=True, slots=True)
class ComparePage:
    """What the page shows."""

    job: Job
    #: None if there is nothing with which it can be compared yet.
    comparison: Comparison | None
    #: How far was searched for the last success of the task, if that was asked for and none was found.
    search: LastSuccess | None
    #: How long attempts of the tasks of the two jobs usually wait and run.
    typical: tuple[TypicalTimes, ...]
    #: Whether arguments, errors and logs are left out, because the user may not see them.
    hidden: bool

    @property
    def jobs(self) -> tuple[ComparedJob, ...]:
        """The two jobs."""
        return (self.comparison.a, self.comparison.b) if self.comparison else ()

    @property
    def timelines(self) -> list[list[tuple[Attempt, Markup]]]:
        """The attempts of each job with their bars, on one scale that begins when each was enqueued; newest first."""
        whole = max((length(one.attempts) for one in self.jobs), default=0.0)
        both = (zip(one.attempts, bars(one.attempts, whole=whole), strict=True) for one in self.jobs)
        return [list(one)[::-1] for one in both]

    @property
    def durations(self) -> list[tuple[str, list[float | None]]]:
        """How long both waited, ran, and took in all."""
        names = (("waited", texts.job.WAITED), ("ran", texts.job.RAN), ("total", texts.compare.TOTAL))
        return [(label, [getattr(one.times, name) for one in self.jobs]) for name, label in names]

    @property
    def differences(self) -> list[DifferenceRow]:
        """The differences of the arguments."""
        found = self.comparison.arguments if self.comparison else None
        return [] if found is None else [_row(one) for one in found.different]

    @property
    def equal(self) -> list[tuple[str, str]]:
        """The parts that the arguments have in common, with their paths."""
        found = self.comparison.arguments if self.comparison else None
        parts = () if found is None else found.equal
        return [(written_path(one.path), side_by_side(one.path, one.value, one.value)[0]) for one in parts]

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        known: dict[str, Any] = {"a": self.job.id, "b": None, "hidden": self.hidden, "search": self.search}
        found = self.comparison
        if found is None:
            return known
        arguments = None if found.arguments is None else masked_differences(found.arguments)
        return known | {
            "b": found.b.job.id, "jobs": [_as_dict(one) for one in self.jobs], "facts": found.facts,
            "arguments": arguments, "errors": found.errors,
            "same_frames": found.same_frames, "same_log": found.same_log, "typical": self.typical,
        }  # fmt: skip


@page(blueprint, "/jobs/compare", title=texts.compare.COMPARE)
def show(view: View) -> ComparePage | Response:
    """Compare the jobs `a` and `b`, or `a` with the last success of its task; `id`, twice: those that were selected."""
    given = view.parameters
    if chosen := request.args.getlist("id"):
        ids = given.numbers(chosen, "id")
        if len(ids) != BOTH:
            raise InvalidParameter(texts.refusals.not_two_jobs(len(ids)))
        return _to(*ids)
    given.required("a")
    first, second = given.number("a", least=1), given.number("b", least=1)
    assert first is not None  # noqa: S101 - it is required
    job, _, logs = read(view, first)
    hidden = not view.may(PAYLOAD)
    if second is None:
        found = _last_success(view, job)
        if found.job is not None:
            return _to(first, found.job)
        return ComparePage(without_payload(job) if hidden else job, None, found, (), hidden)
    other, _, other_logs = read(view, second)
    both = [without_payload(one) if hidden else one for one in (job, other)]
    circumstances = view.share(
        ("job.circumstances", first, second), CURRENT if job.finished and other.finished else LIVE,
        lambda conn: Comparisons(view.source.schema).read(conn, job, other),
    )  # fmt: skip
    result = comparison.compare(
        *both, circumstances=circumstances, arguments=not hidden,
        logs={} if hidden else {first: logs, second: other_logs},
    )  # fmt: skip
    return ComparePage(both[0], result, None, (typical_of(view, job), typical_of(view, other)), hidden)


def _to(a: int, b: int) -> Response:
    """Lead to the address of a comparison that stays the same."""
    found = redirect(url_for("compare.show_json" if wants_json() else "compare.show", a=a, b=b))
    assert isinstance(found, Response)  # noqa: S101
    return found


def _last_success(view: View, job: Job) -> LastSuccess:
    """Search for the last success as long as a list of jobs does."""
    cursor, far = view.parameters.number("below"), view.parameters.flag("far")
    search = partial(comparison.last_success, view.source.search, job, cursor=cursor, time_limit=FAR if far else QUICK)
    return view.get(("job.last_success", job.id, cursor, far), COUNTED, search)


def _row(one: Difference) -> DifferenceRow:
    a, b = side_by_side(one.path, one.a, one.b)
    return DifferenceRow(written_path(one.path), a if one.in_a else None, b if one.in_b else None)


def _as_dict(one: ComparedJob) -> Mapping[str, Any]:
    job, attempts = one.job, [{name: getattr(each, name) for name in _ATTEMPT} for each in one.attempts]
    return {
        "id": job.id, "task": job.task, "queue": job.queue, "state": job.state, "enqueued_at": job.enqueued_at,
        "finished_at": job.finished_at, "attempts": attempts, "times": one.times, "frames": one.frames, "log": one.log,
    }  # fmt: skip


@blueprint.app_template_test("a_fingerprint")
def is_fingerprint(text: str | None) -> bool:
    """Return whether a text is a fingerprint; a record may have been edited by hand."""
    return text is not None and FINGERPRINT.fullmatch(text) is not None


_ATTEMPT: Sequence[str] = ("number", "end", "since", "due_at", "began_at", "ended_at", "waited", "ran")
