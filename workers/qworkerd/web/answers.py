"""Turns page functions into routes: what one returns is sent as HTML, as JSON and as CSV."""

from collections.abc import Callable
from functools import partial, wraps
from hashlib import sha256
from typing import Any

from flask import Blueprint, Response, current_app, g, jsonify, redirect, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden, NotFound

from qworker.actor import Via, acting_as
from qworker.errors import DatabaseUnavailable, QworkerError
from qworkerd.web import acted, idempotency, messages, texts
from qworkerd.web.access import VIEW
from qworkerd.web.exports import Paged, Table, table_of
from qworkerd.web.idempotency import Done
from qworkerd.web.parameters import InvalidParameter
from qworkerd.web.plain import as_json, plain
from qworkerd.web.view import View

__all__ = ["Done", "action", "back", "page", "region", "wants_json"]


def page(
    blueprint: Blueprint,
    rule: str,
    *,
    title: str,
    template: str | None = None,
    right: str = VIEW,
    table: Table | Paged | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show what the decorated function returns for a `View` and the parts of the address: a dataclass.

    The rule with the suffix .json answers with the same as JSON; with .csv and `table`, as CSV, all pages of a list.
    The template, by default named as the blueprint, gets `data`, `view` and `title`. Names of queues, tasks and so on
    are parameters of the query (`/queue?name=`), because a browser changes paths with dots and slashes.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        shown = template or f"{blueprint.name}.html"

        def read(parts: dict[str, Any]) -> tuple[View, Any]:
            view: View = g.view
            if not view.may(right):
                raise Forbidden(texts.refusals.no_right_to_see(right))
            return view, function(view, **parts)

        def reread(parts: dict[str, Any], view: View) -> Any:
            g.view = view
            return read(parts)[1]

        def html(**parts: Any) -> ResponseReturnValue:
            view, data = read(parts)
            if isinstance(data, Response):
                return data
            context = {"data": data, "view": view, "title": title}
            return region(shown, view.region, context) if view.region else render_template(shown, **context)

        def json(**parts: Any) -> ResponseReturnValue:
            _, data = read(parts)
            return data if isinstance(data, Response) else _text(as_json(data), "application/json")

        def csv(**parts: Any) -> ResponseReturnValue:
            return table_of(g.view, f"qworker-{blueprint.name}", partial(reread, parts), table)

        base = "/overview" if rule == "/" else rule
        blueprint.add_url_rule(rule, name, html, methods=["GET"])
        blueprint.add_url_rule(f"{base}.json", f"{name}_json", json, methods=["GET"])
        if table is not None:
            blueprint.add_url_rule(f"{base}.csv", f"{name}_csv", csv, methods=["GET"])
        return function

    return decorate


def action(
    blueprint: Blueprint, rule: str, *, right: str, once: bool = False
) -> Callable[[Callable[..., Done | Response]], Callable[..., ResponseReturnValue]]:
    """Do what the decorated function does, for users with the right, by POST: it gets a `View` and returns `Done`.

    It may also return an answer of its own: the form, with what is wrong with it.

    once: a form with the field `once`, from `View.once`, acts once: for what would be done another time otherwise. A
    request with the header Idempotency-Key acts once in any case; see `qworkerd.web.idempotency`.

    A browser is led to a page that shows the message; a program that accepts JSON gets the result. Errors of the
    package and of parameters become messages as well.
    """

    def decorate(function: Callable[..., Done | Response]) -> Callable[..., ResponseReturnValue]:
        @wraps(function)
        def act(**parts: Any) -> ResponseReturnValue:
            view: View = g.view
            if not view.may(right):
                raise Forbidden(texts.refusals.no_right_to_do(right))
            try:
                name = idempotency.name_of(view, form=once)
                with acting_as(view.access.user, via=Via.WEB, address=request.remote_addr, request=name):
                    done = idempotency.once(view, name, partial(function, view, **parts))
            except DatabaseUnavailable:
                raise
            except idempotency.KeyReused as error:
                return _refused(str(error), 422)
            except (InvalidParameter, QworkerError, ValueError) as error:
                return _refused(str(error))
            if isinstance(done, Response):
                return done
            view.shared.invalidate()
            if wants_json():
                result = {"message": done.message, "changed": done.changed, "result": done.result}
                return acted.put(_text(as_json(result)))
            answer = acted.put(redirect(done.to or back(), 303))
            return messages.put(answer, done.message, good=done.changed)

        blueprint.add_url_rule(rule, function.__name__, act, methods=["POST"])
        return act

    return decorate


def region(template: str, name: str, context: dict[str, Any]) -> Response:
    """Return one block of a template with a strong ETag; 304 if the browser has the same."""
    current_app.update_template_context(context)
    found = current_app.jinja_env.get_template(template)
    block = found.blocks.get(name)
    if block is None or name in PRIVATE_BLOCKS:
        raise NotFound(texts.refusals.no_region(name[:40]))
    body = "".join(block(found.new_context(context)))
    answer = _text(body, "text/html")
    answer.set_etag(sha256(body.encode("utf-8", "backslashreplace")).hexdigest()[:32])
    return answer


#: Blocks of templates that are not regions.
PRIVATE_BLOCKS = frozenset({"title", "content", "body", "head"})


def wants_json() -> bool:
    """Return whether the client is a program that wants JSON."""
    best = request.accept_mimetypes.best_match(["text/html", "application/json"], default="text/html")
    return request.path.endswith(".json") or best == "application/json"


def back() -> str:
    """Return the page that the form was on: a path of the dashboard, never another site."""
    given = request.form.get("back", "")
    home = f"{request.script_root}/"
    safe = given.startswith(home) and not given.startswith(("//", "/\\")) and given.isprintable()
    return given if safe and "\\" not in given else home


def _refused(message: str, status: int = 400) -> ResponseReturnValue:
    if wants_json():
        answer = jsonify({"error": plain(message)})
        answer.status_code = status
        return answer
    return messages.put(redirect(back(), 303), message, good=False)


def _text(body: str, kind: str = "application/json") -> Response:
    return Response(body.encode("utf-8", "backslashreplace"), mimetype=kind)
