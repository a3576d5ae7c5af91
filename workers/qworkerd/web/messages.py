"""The message that a page shows after an action: a cookie between the action and the next page."""

import json
from typing import Any
from urllib.parse import quote, unquote

from flask import request
from werkzeug.wrappers import Response

COOKIE = "qworker_message"
#: Maximum number of characters of a message, and of a cookie that is read; seconds that it lives.
MAX_MESSAGE, MAX_COOKIE, LIFETIME = 500, 3_800, 30


def put(answer: Any, message: str, *, good: bool) -> Response:
    """Have the next page show a message."""
    text = message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"
    value = quote(json.dumps({"text": text, "good": good}))
    answer.set_cookie(
        COOKIE, value[:MAX_COOKIE], max_age=LIFETIME, path=path(), secure=request.is_secure, httponly=True,
        samesite="Strict",
    )  # fmt: skip
    found: Response = answer
    return found


def get() -> dict[str, Any] | None:
    """Return the message of this request; None without one."""
    try:
        found = json.loads(unquote(request.cookies.get(COOKIE, "")[:MAX_COOKIE]))
        return {"text": str(found["text"])[:MAX_MESSAGE], "good": bool(found["good"])}
    except (ValueError, KeyError, TypeError):
        return None


def delete(answer: Response) -> None:
    """Forget the message, which has been shown."""
    answer.delete_cookie(COOKIE, path=path(), secure=request.is_secure, httponly=True, samesite="Strict")


def path() -> str:
    """Return the path of the dashboard's cookies."""
    return request.script_root or "/"
