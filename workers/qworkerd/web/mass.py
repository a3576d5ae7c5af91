"""Actions on many jobs: on those that were selected at once, on all that match a filter as an operation."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from qworker.actor import Actor, acting_as, current_actor
from qworker.job import Job
from qworker.operations import MAX_RATE, Action, Operation, Operations
from qworker.options import check_move
from qworker.search import Count
from qworkerd.web import texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.answers import Done
from qworkerd.web.filtering import Wanted, nodes_of, wanted
from qworkerd.web.job_rows import JobRow, rows_of
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.view import View

#: Jobs that are shown before an operation is created, and jobs that are changed at once.
SAMPLES, MAX_SELECTED = 5, 500
#: The time for counting the jobs of an operation, before it is created and when it is (seconds).
PLAN_TIME, COUNT_TIME = 0.1, 1.0
_RATE = re.compile(r"\d{1,7}(?:\.\d{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operation would do."""

    action: Action
    wanted: Wanted
    #: The filter with the states on which the action has an effect.
    affected: str
    #: How many jobs match; None if the filter cannot be read.
    count: Count | None
    #: Some of them, the newest first.
    samples: list[JobRow]
    #: The highest id; newer jobs are not affected.
    upper_id: int
    #: The number of nodes that live and carry it out.
    nodes: int

    @property
    def verb(self) -> str:
        """What is done."""
        return texts.actions.VERBS[self.action.value]

    @property
    def rule(self) -> str:
        """Which jobs it concerns."""
        return texts.actions.RULES[self.action.value]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The actions and their names."""
        return list(texts.actions.VERBS.items())


def change(view: View, action: Action, ids: list[int]) -> Done:
    """Take an action on the jobs with these ids."""
    ids = sorted(set(ids))
    if not ids:
        raise InvalidParameter(texts.refusals.NOTHING_SELECTED)
    if len(ids) > MAX_SELECTED:
        raise InvalidParameter(texts.refusals.too_many_selected(len(ids), MAX_SELECTED))
    with noted(view):
        changed = getattr(view.source.acting, action.value)(*ids, **_options(view, action))
    return Done(
        texts.actions.done(action.value, len(changed), len(ids)), result=_result(changed, ids), changed=bool(changed)
    )  # fmt: skip


def _result(changed: Any, ids: list[int]) -> dict[str, Any]:
    found = {str(job): str(value) for job, value in changed.items()} if isinstance(changed, dict) else list(changed)
    return {"changed": found, "unchanged": [job for job in ids if job not in changed]}


def noted(view: View) -> AbstractContextManager[Actor]:
    """Have the audit store the reason that the user has given."""
    actor, note = current_actor(), view.form.text("note", longest=1_000)
    return acting_as(actor.name, via=actor.via, address=actor.address, note=note or None, request=actor.request)


def _options(view: View, action: Action) -> dict[str, Any]:
    if action is not Action.MOVE:
        return {}
    queue, priority = view.form.text("queue") or None, view.form.number("priority", most=9)
    try:
        check_move(queue, priority)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(str(error)) from None
    return {"queue": queue, "priority": priority}


def plan(view: View, action: Action, found: Wanted) -> Plan:
    """Return what an operation on all jobs that match would do."""
    if found.filter is None:
        return Plan(action, found, "", None, [], 0, 0)
    affected, search = found.filter.limited_to(action.states), view.source.search
    upper = search.last_id()
    count = search.count(affected, below=upper + 1, time_limit=PLAN_TIME)
    jobs: tuple[Job, ...] = ()
    if count.jobs:
        jobs = search.page(affected, limit=SAMPLES, time_limit=PLAN_TIME).jobs
    live = sum(node.alive for node in nodes_of(view))
    return Plan(action, found, str(affected), count, rows_of(jobs, [], [], with_error=view.may(PAYLOAD)), upper, live)


def create(view: View, action: Action) -> Operation:
    """Create the operation of a form: filter, highest id, rate and reason."""
    found = wanted(view, view.form.filter())
    if found.filter is None:
        assert found.error is not None  # noqa: S101
        raise InvalidParameter(found.error.message)
    search, upper = view.source.search, view.form.number("upper_id")
    upper = search.last_id() if upper is None else upper
    count = search.count(found.filter.limited_to(action.states), below=upper + 1, time_limit=COUNT_TIME)
    if count.exact and not count.jobs:
        raise InvalidParameter(texts.refusals.none_matches(texts.actions.RULES[action.value]))
    with noted(view), view.writing() as conn:
        return Operations(view.source.schema).create(
            conn, action, found.filter, upper_id=upper, expected=count.jobs if count.exact else None,
            rate=_rate(view), options={k: v for k, v in _options(view, action).items() if v is not None},
        )  # fmt: skip


def _rate(view: View) -> float | None:
    text = view.form.text("rate", longest=20)
    if not text:
        return None
    rate = float(text) if _RATE.fullmatch(text) else 0.0
    if not 0 < rate <= MAX_RATE:
        raise InvalidParameter(texts.refusals.no_rate(text, MAX_RATE))
    return rate
