"""The operations: actions on all jobs that match a filter. Their progress, and the button that stops them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint
from werkzeug.exceptions import NotFound

from qworker.errors import InvalidOperation
from qworker.operations import Operation, OperationNotFound, Operations
from qworkerd.web import texts
from qworkerd.web.ages import LIVE
from qworkerd.web.answers import Done, action, page
from qworkerd.web.exports import Paged
from qworkerd.web.filtering import allowed_operation
from qworkerd.web.pages import Entry
from qworkerd.web.parameters import MAX_ID
from qworkerd.web.view import View

blueprint = Blueprint("operations", __name__)
entry = Entry("operations.index", texts.operations.OPERATIONS, "p")


@dataclass(frozen=True, slots=True)
class OperationsData:
    """What the page of all operations shows."""

    operations: Sequence[Operation]
    running: bool
    #: The id below which the next page begins; None if this is the last one.
    next_below: int | None
    now: datetime


@dataclass(frozen=True, slots=True)
class OperationData:
    """What the page of one operation shows."""

    operation: Operation
    now: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has; speed is in jobs per second, remaining in seconds."""
        one = self.operation
        known = {field.name: getattr(one, field.name) for field in fields(one)}
        return known | {
            "handled": one.handled, "share": one.share, "speed": one.speed(self.now),
            "remaining": one.remaining(self.now),
        }  # fmt: skip


@page(
    blueprint, "/operations", title=texts.operations.OPERATIONS,
    table=Paged(lambda data: table(data.operations), lambda data: data.next_below),
)  # fmt: skip
def index(view: View) -> OperationsData:
    """Return a page of operations, the newest first."""
    size, below = view.parameters.page_size(), view.parameters.number("below")
    running = view.parameters.flag("running")
    known = Operations(view.source.schema)
    found = view.share(
        ("operations", size, below, running), LIVE,
        lambda conn: known.find(conn, running=running, below=below, limit=size + 1),
    )  # fmt: skip
    more = found[size - 1].id if len(found) > size else None
    return OperationsData([allowed_operation(view, one) for one in found[:size]], running, more, datetime.now(UTC))


@page(blueprint, "/operations/<int:number>", title=texts.operations.OPERATION, template="operation.html")
def show(view: View, number: int) -> OperationData:
    """Return one operation."""
    known = Operations(view.source.schema)
    try:
        found = view.share(("operation", _checked(number)), LIVE, lambda conn: known.get(conn, number))
    except OperationNotFound:
        raise NotFound(texts.refusals.no_operation(number)) from None
    return OperationData(allowed_operation(view, found), datetime.now(UTC))


@action(blueprint, "/operations/<int:number>/stop", right="operation.stop")
def stop(view: View, number: int) -> Done:
    """Stop an operation after its current slice."""
    known = Operations(view.source.schema)
    with view.writing() as conn:
        stopped = known.stop(conn, _checked(number))
        found = stopped or known.get(conn, number)
    if stopped is None and found.state != "stopped":
        raise InvalidOperation(texts.refusals.ended(number, found.state))
    return Done(
        texts.operations.stopped(number, found.handled),
        result=OperationData(allowed_operation(view, found), datetime.now(UTC)), changed=stopped is not None,
    )  # fmt: skip


def _checked(number: int) -> int:
    if number > MAX_ID:
        raise NotFound(texts.refusals.no_operation(str(number)[:40]))
    return number


def table(operations: Iterable[Operation]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the operations for a spreadsheet."""
    head = ("id", "action", "state", "filter", "done", "skipped", "failed", "expected", "rate", "actor", "note",
            "created_at", "finished_at", "error")  # fmt: skip
    return head, (tuple(getattr(one, name) for name in head) for one in operations)
