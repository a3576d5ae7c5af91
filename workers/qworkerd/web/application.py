"""Makes the WSGI application: routes, what happens before and after each request, and pages for errors."""

import gzip
from collections.abc import Collection
from typing import Any

import psycopg
from flask import Blueprint, Flask, Response, g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from jinja2 import StrictUndefined
from werkzeug.exceptions import BadHost, HTTPException, NotFound, SecurityError, Unauthorized
from werkzeug.utils import redirect

from qworker.errors import DatabaseUnavailable, JobNotFound, QworkerError
from qworkerd import __version__
from qworkerd.log.redaction import mask
from qworkerd.log.visible import visible
from qworkerd.web import acted, ages, links, messages, texts
from qworkerd.web.access import Authorize, Redirect
from qworkerd.web.answers import wants_json
from qworkerd.web.assets import Asset, asset
from qworkerd.web.formats import FILTERS
from qworkerd.web.pages import modules
from qworkerd.web.parameters import InvalidParameter, Parameters
from qworkerd.web.plain import as_json
from qworkerd.web.security import SAFE, add_headers, check_host, check_origin
from qworkerd.web.shared import Shared
from qworkerd.web.source import Dsn, Source, Target
from qworkerd.web.view import REGION, View, preferences

#: Bytes of a request's body, and from how many bytes on an answer is compressed.
MAX_BODY, MIN_COMPRESSED = 1_048_576, 1_024
#: Seconds after which a client may ask again while the database does not answer.
RETRY_AFTER = 5
#: What is wrong with a Host header that no name of a server can be. Without a server's name, pages have no addresses.
NO_HOST = (BadHost, SecurityError)


def create_app(
    target: Target = None,
    *,
    access: Authorize,
    schema: str | None = None,
    dsn: Dsn = None,
    read_dsn: Dsn = None,
    read_only: bool = False,
    allowed_hosts: Collection[str] | None = None,
) -> Flask:
    """Return the dashboard as a WSGI application, which can be mounted under any path (SCRIPT_NAME).

    target: the App whose jobs are shown, or a connection string; by default $QWORKER_DSN and so on. access: returns the
    user of a request, see `qworkerd.web.access`. schema, dsn: those of the App by default. read_dsn: another connection
    for pages, such as that of a viewer or to a standby. read_only: nobody may do anything. allowed_hosts: the names
    under which the dashboard is reached, if nothing in front of it checks them.
    """
    app = Flask("qworkerd.web", static_folder=None, template_folder="templates")
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, MAX_FORM_MEMORY_SIZE=MAX_BODY, MAX_FORM_PARTS=2_000)
    source, shared = Source(target, schema=schema, dsn=dsn, read_dsn=read_dsn), Shared()
    app.extensions |= {"qworker_source": source, "qworker_shared": shared}

    @app.before_request
    def enter() -> ResponseReturnValue | None:
        check_host(request, allowed_hosts)
        if isinstance(request.routing_exception, NO_HOST):
            raise request.routing_exception
        if request.endpoint == "static":
            return None
        if request.blueprint == "signin":
            check_origin(request, token=False)
            return None
        found = access(request.environ)
        if isinstance(found, Redirect):
            # A program, or the script that refreshes a page, gets a status that says what is wrong.
            if wants_json() or REGION in request.args or request.method not in SAFE:
                raise Unauthorized(texts.refusals.SESSION_ENDED)
            return redirect(found.location, 303)
        if found is None:
            raise Unauthorized(texts.refusals.UNKNOWN_USER)
        check_origin(request, token=found.by_token)
        region = request.args.get(REGION)
        g.view = View(
            source, shared, found.without_actions() if read_only else found, Parameters(request.args),
            Parameters(request.form), None if region is None else Parameters({REGION: region}).text(REGION),
            preferences(), acted.since(shared),
        )  # fmt: skip
        g.message = None
        return None

    entries = _pages(app)
    for function in getattr(access, "functions", (access,)):
        if hasattr(function, "blueprint"):
            app.register_blueprint(function.blueprint)
    _templates(app, entries)
    _errors(app)
    app.add_url_rule("/static/<name>", "static", _static)
    app.after_request(_leave)
    return app


def _pages(app: Flask) -> list[Any]:
    entries = []
    for module in modules():
        blueprint: Blueprint = module.blueprint
        app.register_blueprint(blueprint)
        if hasattr(module, "entry"):
            entries.append(module.entry)
    return entries


def _templates(app: Flask, entries: list[Any]) -> None:
    env = app.jinja_env
    env.undefined, env.autoescape = StrictUndefined, True
    env.trim_blocks = env.lstrip_blocks = True
    env.filters.update(FILTERS)

    def asset_url(name: str) -> str:
        found = asset(name)
        return url_for("static", name=name, v=found.version if found else None)

    def message() -> dict[str, Any] | None:
        g.message = messages.get()
        found: dict[str, Any] | None = g.message
        return found

    def known(endpoint: str) -> bool:
        return endpoint in app.view_functions

    env.globals.update(
        asset=asset_url,
        entries=entries,
        version=__version__,
        message=message,
        known=known,
        link=links,
        ages=ages,
        t=texts,
    )
    # As a global, macros are also known to the blocks that are rendered alone.
    env.globals["ui"] = env.get_template("macros.html").make_module({})


def _static(name: str) -> Response:
    found = asset(name)
    if found is None:
        raise NotFound
    answer = _sent(found)
    # Another version of the file has another address.
    current = request.args.get("v") == found.version
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if current else "no-cache"
    return answer


def _sent(found: Asset) -> Response:
    compressed = "gzip" in request.headers.get("Accept-Encoding", "")
    answer = Response(found.compressed if compressed else found.body, mimetype=found.kind)
    if compressed:
        answer.headers["Content-Encoding"] = "gzip"
    answer.vary.add("Accept-Encoding")
    return answer


def _leave(answer: Response) -> Response:
    add_headers(answer)
    if g.get("message"):
        messages.delete(answer)
    if request.endpoint != "static":
        answer.vary.update(["Cookie", "Accept-Encoding"])
    answer.make_conditional(request)
    body = answer.get_data() if answer.status_code != 304 and not answer.is_streamed else b""  # noqa: PLR2004
    if (
        len(body) >= MIN_COMPRESSED
        and "Content-Encoding" not in answer.headers
        and "gzip" in request.headers.get("Accept-Encoding", "")
    ):
        # The content is the same whether compressed or not, so both have one ETag, which only our script compares.
        answer.set_data(gzip.compress(body, 5, mtime=0))
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def _errors(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> ResponseReturnValue:
        code, text = error.code or 500, error.description or ""
        if text == type(error).description:
            text = texts.refusals.REASONS.get(code, text)
        return _error(code, texts.refusals.STATUSES.get(code, error.name.capitalize()), text)

    @app.errorhandler(InvalidParameter)
    def invalid(error: InvalidParameter) -> ResponseReturnValue:
        return _error(400, texts.refusals.BAD_REQUEST, str(error))

    @app.errorhandler(JobNotFound)
    def missing(error: JobNotFound) -> ResponseReturnValue:
        return _error(404, texts.refusals.NOT_FOUND, str(error))

    @app.errorhandler(DatabaseUnavailable)
    @app.errorhandler(psycopg.OperationalError)
    @app.errorhandler(psycopg.errors.ReadOnlySqlTransaction)
    def unavailable(error: Exception) -> ResponseReturnValue:
        if isinstance(error, psycopg.errors.QueryCanceled):
            return _error(504, texts.refusals.TOO_SLOW, texts.refusals.SLOW)
        known: dict[type[Exception], tuple[str, str]] = {
            psycopg.errors.ReadOnlySqlTransaction: (texts.refusals.NO_CHANGES, texts.refusals.READ_ONLY),
            psycopg.errors.LockNotAvailable: (texts.refusals.NOT_NOW, texts.refusals.LOCKED),
        }
        name, text = known.get(type(error), (texts.refusals.DATABASE_UNAVAILABLE, str(error)))
        answer = app.make_response(_error(503, name, text))
        answer.headers["Retry-After"] = str(RETRY_AFTER)
        return answer

    @app.errorhandler(psycopg.Error)
    def failed(error: psycopg.Error) -> ResponseReturnValue:
        return _error(500, texts.refusals.DATABASE_REFUSED, error.diag.message_primary or str(error))

    @app.errorhandler(QworkerError)
    def wrong(error: QworkerError) -> ResponseReturnValue:
        return _error(500, texts.refusals.ERROR, str(error))


def _error(code: int, name: str, text: str) -> ResponseReturnValue:
    text = visible(mask(text.strip()))[:2_000]
    if wants_json():
        return Response(as_json({"error": text or name}), status=code, mimetype="application/json")
    if isinstance(request.routing_exception, NO_HOST):
        return Response(f"{name}: {text}\n", status=code, mimetype="text/plain")
    return render_template("error.html", code=code, name=name, text=text, view=g.get("view")), code
