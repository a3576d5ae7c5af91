"""Sign in with a password of the users file: a page, and a signed cookie for twelve hours."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import InternalServerError, TooManyRequests
from werkzeug.http import parse_cookie

from qworkerd.web import texts
from qworkerd.web.access import Access, Redirect
from qworkerd.web.parameters import Parameters
from qworkerd.web.sessions import LIFETIME, Sessions
from qworkerd.web.throttle import Throttle
from qworkerd.web.users import MAX_PASSWORD, check_password, users

COOKIE = "qworker_session"


class SignIn:
    """Accepts requests with the cookie of a session, and leads others to the page where users sign in."""

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        self._users = users(path)
        self._sessions = Sessions(path)
        self._throttle = Throttle(clock)
        #: The pages, which need no session.
        self.blueprint = Blueprint("signin", __name__)
        self.blueprint.add_url_rule("/sign-in", "form", self._form, methods=["GET"])
        self.blueprint.add_url_rule("/sign-in", "submit", self._submit, methods=["POST"])
        self.blueprint.add_url_rule("/sign-out", "leave", self._leave, methods=["POST"])

    def __call__(self, environ: Mapping[str, Any]) -> Access | Redirect | None:
        """Return the user of the session, or where to sign in."""
        cookie = parse_cookie(environ.get("HTTP_COOKIE", "")).get(COOKIE, "")
        user = self._sessions.user_of(cookie, self._users())
        if user is not None:
            return Access(user.name, user.actions)
        path = environ.get("PATH_INFO", "/")
        here = path + (f"?{query}" if (query := environ.get("QUERY_STRING")) else "")
        return Redirect(f"{environ.get('SCRIPT_NAME', '')}/sign-in?next={quote(here, safe='')}")

    def _form(self) -> ResponseReturnValue:
        return self._page("")

    def _submit(self) -> ResponseReturnValue:
        form = Parameters(request.form)
        name, password = form.text("name"), request.form.get("password", "")[: MAX_PASSWORD + 1]
        address = request.remote_addr or ""
        if not self._throttle.allows(name, address):
            raise TooManyRequests(texts.signin.THROTTLED)
        user = self._users().get(name)
        if not check_password(user, password) or user is None:
            self._throttle.wrong(name, address)
            return self._page(texts.signin.WRONG), 401
        self._throttle.right(name, address)
        answer = redirect(self._next(), 303)
        answer.set_cookie(
            COOKIE, self._sessions.begin(user), max_age=LIFETIME, path=request.script_root or "/",
            secure=request.is_secure, httponly=True, samesite="Lax",
        )  # fmt: skip
        return answer

    def _leave(self) -> ResponseReturnValue:
        try:
            self._sessions.end(request.cookies.get(COOKIE, ""), self._users())
        except OSError as error:
            # The cookie stays, so that it can be tried again.
            raise InternalServerError(texts.signin.still_signed_in(error.filename, error.strerror)) from None
        answer = redirect(url_for("signin.form"), 303)
        answer.delete_cookie(COOKIE, path=request.script_root or "/")
        return answer

    def _page(self, message: str) -> str:
        return render_template("signin.html", problem=message, view=None, title=texts.signin.SIGN_IN, next=self._next())

    def _next(self) -> str:
        """Return the page to show after signing in: one of the dashboard."""
        given = request.values.get("next", "/")
        own = given.startswith("/") and not given.startswith(("//", "/\\", "/sign-")) and given.isprintable()
        return request.script_root + (given if own and "\\" not in given else "/")
