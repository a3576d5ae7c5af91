"""When a user has last done something: a cookie, by which another process knows that its answers are older.

The process that has acted forgets all its answers; in a server with several processes, the next page may come from any.
"""

from time import time

from flask import request
from werkzeug.wrappers import Response

from qworkerd.web.ages import NAMES
from qworkerd.web.shared import Shared

COOKIE = "qworker_acted"
#: Milliseconds in a second: what the cookie counts.
_UNIT, _MAX_DIGITS = 1_000, 15


def put(answer: Response) -> Response:
    """Note that the user has done something now; answers live no longer than the cookie."""
    answer.set_cookie(
        COOKIE, str(int(time() * _UNIT) + 1), max_age=int(NAMES), path=request.script_root or "/",
        secure=request.is_secure, httponly=True, samesite="Strict",
    )  # fmt: skip
    return answer


def since(shared: Shared) -> float:
    """Return when the user has last done something, by the clock of the answers; 0 if that is long ago."""
    value = request.cookies.get(COOKIE, "")
    if not value.isdecimal() or len(value) > _MAX_DIGITS:
        return 0.0
    return shared.now() - max(0.0, time() - int(value) / _UNIT)
