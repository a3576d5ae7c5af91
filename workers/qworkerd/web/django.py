"""The dashboard in a Django project: `path("qworker/", include(qworkerd.web.django.urls()))`."""

import io
from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, RawPostDataException
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt
from werkzeug.test import run_wsgi_app

from qworkerd.web.access import ALL, READ, Access, Redirect
from qworkerd.web.application import create_app
from qworkerd.web.source import Target

#: The key of the environment with Django's request.
REQUEST = "qworker.django_request"
#: Permissions on the model of jobs, as in the admin: a user with the first one sees everything, and with the second one
#: may do everything.
VIEW_PERMISSION, CHANGE_PERMISSION = "qworker.view_job", "qworker.change_job"


def urls(target: Target = None, **options: Any) -> list[Any]:
    """Return the URL patterns; options are those of `create_app`. Without `access`, see `staff`.

    target: the App; by default that of the project, `qworker.contrib.django.app`.
    """
    return [re_path(r"^(?P<path>.*)$", view(target, **options), name="qworker")]


def view(target: Target = None, **options: Any) -> Callable[..., HttpResponse]:
    """Return the view that answers all requests below its path. The dashboard checks the origin of each by itself."""
    if target is None:
        from qworker.contrib.django import app as target
    app = create_app(target, **{"access": staff} | options)

    @csrf_exempt
    def dashboard(request: HttpRequest, path: str = "") -> HttpResponse:
        body, status, headers = run_wsgi_app(app, environ_of(request, path), buffered=True)
        answer = HttpResponse(b"".join(body), status=int(status.split()[0]))
        # Django's own default; the answer of a redirect has none.
        del answer["Content-Type"]
        for name, value in headers.items():
            if name.lower() == "set-cookie":
                answer.cookies.load(value)
            else:
                answer[name] = value
        return answer

    found: Callable[..., HttpResponse] = dashboard
    return found


def staff(environ: Mapping[str, Any]) -> Access | Redirect | None:
    """Accept users of the admin with the permission to view jobs; with that to change them they may do everything.

    Users of a model of the project's own that has no staff or no permissions are refused.
    """
    # A project without these applications has functions of its own.
    from django.contrib.auth.views import redirect_to_login

    request: HttpRequest = environ[REQUEST]
    user = request.user
    if not user.is_authenticated:
        return Redirect(redirect_to_login(request.get_full_path()).url)
    if not (user.is_active and getattr(user, "is_staff", False) and hasattr(user, "has_perm")):
        return None
    if not user.has_perm(VIEW_PERMISSION):
        return None
    return Access(user.get_username(), ALL if user.has_perm(CHANGE_PERMISSION) else READ)


def environ_of(request: HttpRequest, path: str) -> dict[str, Any]:
    """Return a WSGI environment for the rest of a path: also of a request that came by ASGI."""
    found = {name: value for name, value in request.META.items() if isinstance(value, str)}
    whole = request.path
    try:
        body, kind = request.body, request.META.get("CONTENT_TYPE", "")
    except RawPostDataException:
        # A middleware has read the form, of which nothing is left but its fields.
        body, kind = request.POST.urlencode().encode(), "application/x-www-form-urlencoded"
    return found | {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _wsgi(whole[: len(whole) - len(path)].rstrip("/")),
        "PATH_INFO": _wsgi(f"/{path}"),
        "HTTP_HOST": request.get_host(),
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": request.scheme,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        REQUEST: request,
    }


def _wsgi(text: str) -> str:
    """Return a string as WSGI has it: its UTF-8 read as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
