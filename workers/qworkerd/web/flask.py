"""The dashboard in a Flask application: `mount(flask_app, app, "/qworker", access=...)`."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from qworker.app import App
from qworker.db.connection import resolve_dsn
from qworkerd.web.access import ALL, Access, Authorize, Redirect
from qworkerd.web.application import create_app
from qworkerd.web.source import Target

#: The key of the environment with the path of the dashboard in the application.
PATH = "qworker.mount"


def mount(host: Flask, target: Target, path: str = "/qworker", *, access: Authorize, **options: Any) -> Flask:
    """Serve the dashboard below a path of an application; options are those of `create_app`. Return the dashboard."""

    def dsn() -> str:
        with host.app_context():
            found = target.dsn if isinstance(target, App) else target
            return resolve_dsn(found)

    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"path is {path!r}: begin it with a slash, and do not end it with one")
    dashboard = create_app(target, access=access, **{"dsn": dsn} | options)

    def mounted(environ: dict[str, Any], start_response: Any) -> Any:
        environ[PATH] = path
        return dashboard(environ, start_response)

    # Inside of ProxyFix, or the dashboard would see the address, scheme and prefix of the proxy's own request.
    outer: Any = host
    name = "wsgi_app"
    while isinstance(getattr(outer, name), ProxyFix):
        outer, name = getattr(outer, name), "app"
    setattr(outer, name, DispatcherMiddleware(getattr(outer, name), {path: mounted}))
    return dashboard


def flask_access(host: Flask, function: Callable[[], Access | Redirect | None]) -> Authorize:
    """Return a function that calls another one in a request context of the application, with its session and `g`."""

    def authorize(environ: Mapping[str, Any]) -> Access | Redirect | None:
        # As the application would see the request, so that it makes right addresses of its own pages.
        path = environ.get(PATH, "")
        own = {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "").removesuffix(path), "PATH_INFO": f"{path}/"}
        with host.request_context({**environ, **own}):
            return function()

    return authorize


def flask_login_access(host: Flask, actions: Callable[[Any], frozenset[str]] = lambda _user: ALL) -> Authorize:
    """Return a function that accepts the users of Flask-Login.

    actions: returns the rights of a user; none of them refuses the user. Others are led to the login view.
    """

    def current() -> Access | Redirect | None:
        from flask_login import current_user

        if not current_user.is_authenticated:
            login_view = host.login_manager.login_view  # type: ignore[attr-defined] # the extension sets it
            return Redirect(url_for(login_view)) if login_view else None
        rights = actions(current_user)
        return Access(str(current_user.get_id()), rights) if rights else None

    return flask_access(host, current)
