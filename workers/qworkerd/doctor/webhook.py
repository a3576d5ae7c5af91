"""Sends changed findings to a URL, in bounded time."""

import json
import socket
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from qworker.findings import Finding
from qworkerd.doctor.changes import Change

#: Limit of one request (seconds), number of attempts, and the delay before each further one (seconds).
REQUEST_TIMEOUT, ATTEMPTS, RETRY_DELAY = 5.0, 3, 1.0
#: Limit of a request whose answer arrives byte by byte: the one above is that of each byte (seconds).
REQUEST_LIMIT = 10.0
#: Maximum number of requests whose answers still arrive after this limit; until one ends, no other is sent.
MAX_ABANDONED = 8

#: The threads of these requests.
_abandoned: list[threading.Thread] = []


class WebhookError(Exception):
    """The message was not accepted. The text names no more of the URL than its host."""


def check_url(url: str) -> str:
    """Return the URL; raises ValueError, without its secrets, unless it is one for HTTP."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and (parts.hostname or "").encode("idna")
    except ValueError:  # its text may name the secret
        valid = False
    if not valid:
        raise ValueError("the URL of a webhook must begin with https:// or http:// and name a host")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the URL of a webhook must be ASCII without spaces: write other characters as %XX")
    return url


def display_url(url: str) -> str:
    """Return a URL without its user, path and query, which are the secret of most webhooks."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/***"


def message(change: Change, database: str, schema: str) -> dict[str, Any]:
    """Return what is sent. `text` is for services that show messages to people (Slack, Mattermost, Rocket.Chat)."""
    lines = [f"[{finding.severity}] {finding.summary} ({finding.check})" for finding in change.found]
    lines += [f"[resolved] {finding.check} {finding.about}".rstrip() for finding in change.resolved]
    return {
        "text": "\n".join([f"qworker doctor on {socket.gethostname()}, database {database}:", *lines]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "database": database,
        "schema": schema,
        "found": [as_record(finding) for finding in change.found],
        "resolved": [as_record(finding) for finding in change.resolved],
    }


def as_record(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON."""
    return {
        "check": finding.check, "about": finding.about, "severity": finding.severity, "summary": finding.summary,
        "advice": finding.advice, "remedy": list(finding.remedy), "evidence": finding.evidence,
        "documentation": finding.documentation,
    }  # fmt: skip


def post(url: str, body: bytes, sleep: Callable[[float], object]) -> None:
    """Send a JSON text by POST, with a few attempts; raises WebhookError."""
    problem = ""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _within(REQUEST_LIMIT, lambda: _post(url, body))
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"{display_url(url)} answered with status {error.code}"
            if error.code < 500 and error.code != 429:  # noqa: PLR2004 - another attempt would be refused as well
                raise WebhookError(problem) from None
        except (OSError, HTTPException, ValueError) as error:  # a redirect or an answer may make no sense
            reason = getattr(error, "reason", None) or error
            problem = f"{display_url(url)} was not reached: {type(reason).__name__}"
        else:
            return
        if attempt < ATTEMPTS:
            sleep(RETRY_DELAY * attempt)
    raise WebhookError(f"{problem}, in {ATTEMPTS} attempts")


def encode(value: dict[str, Any]) -> bytes:
    """Return JSON text; values of other types are written as strings."""
    return json.dumps(value, default=str).encode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as an error: the message would be sent to a host that nobody has named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect."""


def _within(seconds: float, send: Callable[[], None]) -> None:
    """Call a function in another thread, which is abandoned after `seconds`; raises what it raises, or TimeoutError."""
    _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
    if len(_abandoned) >= MAX_ABANDONED:
        raise TimeoutError
    errors: list[BaseException] = []
    sent = threading.Event()

    def run() -> None:
        try:
            send()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
        sent.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not sent.wait(seconds):
        _abandoned.append(thread)
        raise TimeoutError
    if errors:
        raise errors[0]


def _post(url: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "qworker"}
    parts = urlsplit(url)
    if parts.username is not None:  # urllib would take it for a part of the host
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - see check_url
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(request, timeout=REQUEST_TIMEOUT) as answer:
        answer.read(1024)
