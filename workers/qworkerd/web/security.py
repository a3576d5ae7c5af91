"""Decides whether a request is answered at all, and which headers every answer has."""

from collections.abc import Collection
from urllib.parse import urlsplit

from flask import Request, Response
from werkzeug.exceptions import Forbidden, MisdirectedRequest

from qworkerd.web import texts

#: Methods that change nothing.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Names of this machine. The host of a request is compared with them, so that no name of another site leads here.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a browser sends "Origin: null" with forms, as a form of another site does.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}


def check_host(request: Request, allowed: Collection[str] | None) -> None:
    """Refuse a request for another host than the allowed names; None accepts all."""
    if allowed is not None and host_name(request.host) not in allowed:
        raise MisdirectedRequest(texts.refusals.host(request.host[:100]))


def host_name(host: str) -> str:
    """Return the name or address of a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def check_origin(request: Request, *, token: bool) -> None:
    """Refuse a request that changes something and that a page of another origin may have sent.

    Browsers send Sec-Fetch-Site over HTTPS and to this machine, and Origin with each POST; a page cannot change either.
    token: the client has authenticated itself by a token, which no browser adds by itself.
    """
    if request.method in SAFE:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        allowed = site == "same-origin"
    elif origin is not None:
        allowed = origin == request.host_url.rstrip("/")
    else:
        allowed = token
    if not allowed:
        raise Forbidden(texts.refusals.FOREIGN)


def add_headers(answer: Response) -> Response:
    """Add the headers that restrict what a browser does with an answer."""
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    answer.headers.setdefault("Cache-Control", "no-store")
    return answer
