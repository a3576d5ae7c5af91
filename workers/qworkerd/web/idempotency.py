"""Requests that are sent twice and act once, in whichever process they arrive: the audit knows what they have done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from flask import Response, request

from qworker.actor import request_name
from qworker.audit import Audit, AuditEntry
from qworker.errors import QworkerError
from qworker.operations import OperationNotFound, Operations
from qworkerd.web import links, texts
from qworkerd.web.filtering import allowed_operation
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.view import View

HEADER = "Idempotency-Key"
#: Maximum number of characters of a key.
MAX_KEY = 200
#: The index of the audit that lets a request act once.
INDEX = "audit_request"
#: Fields of a form that do not say what it asks for.
_ASIDE = frozenset({"back", "once"})


class KeyReused(QworkerError):
    """An Idempotency-Key was sent before with a request that asked for something else."""


@dataclass(frozen=True, slots=True)
class Done:
    """The result of an action."""

    #: What has been done, for the user.
    message: str
    #: The page to show next; by default the one that the form was on.
    to: str | None = None
    #: For programs: ids, numbers.
    result: Any = None
    #: False if nothing was changed.
    changed: bool = True


def name_of(view: View, *, form: bool) -> str | None:
    """Return the name of the request; None if it may act again. form: the field `once` names it, too."""
    key = request.headers.get(HEADER)
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidParameter(texts.refusals.bad_key(HEADER, MAX_KEY))
    sent = [(name, value) for name, value in sorted(request.form.items(multi=True)) if name not in _ASIDE]
    if key is not None:
        return request_name("key", view.access.user, key, wants=(request.path, sent))
    once = view.form.text("once") if form else ""
    # A form with other fields is another form.
    return request_name("form", view.access.user, once, request.path, sent) if once else None


def once(view: View, name: str | None, act: Callable[[], Done | Response]) -> Done | Response:
    """Act, or return what the request with this name has done before."""
    try:
        return act()
    except psycopg.errors.UniqueViolation as error:
        if name is None or error.diag.constraint_name != INDEX:
            raise
        with view.writing() as conn:
            found = Audit(view.source.schema).of_request(conn, name)
        if found is None:
            raise
        entry, same = found
        if not same:
            raise KeyReused(texts.refusals.key_reused(HEADER, entry.action)) from None
        return _done_before(view, entry)


def _done_before(view: View, entry: AuditEntry) -> Done:
    to, result = _result(view, entry.target)
    what = texts.actions.REQUEST if request.headers.get(HEADER) else texts.actions.FORM
    text = texts.actions.done_before(what, entry.action, entry.jobs, f"{entry.at:%H:%M:%S}")
    return Done(text, to=to, result=result, changed=False)


def _result(view: View, target: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Return the page that shows what was done, and the same for programs."""
    if "operation" in target:
        number = int(target["operation"])
        try:
            with view.writing() as conn:
                found = Operations(view.source.schema).get(conn, number)
                return links.operation(number), allowed_operation(view, found)
        except OperationNotFound:
            return None, {"operation": number}
    jobs = list(target.get("jobs", ()))
    if "copies" in target:
        copies = list(target["copies"])
        changed = {str(job): str(copy) for job, copy in zip(jobs, copies, strict=False)}
        return links.job(copies[0]) if len(copies) == 1 else None, {"changed": changed, "unchanged": []}
    if jobs and ("task" in target or "schedules" in target):
        return links.job(jobs[0]), {"job": jobs[0], "duplicate": True}
    return None, dict(target)
