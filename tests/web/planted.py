"""Jobs and errors as rows, for pages that show them."""

import json
from datetime import UTC, datetime
from typing import Any

from tests.database import Database

#: Names, arguments and errors that a page must show as what they are.
HOSTILE = (
    "<script>alert(1)</script>", "</textarea><img src=x onerror=alert(1)>", "a/b?c#d%2e%2e&e=f", "../../etc/passwd",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", "\x1b[31mred\x07", "{{ 7 * 7 }}{% raw %}", "'; DROP TABLE job; --", '"><b>x',
    '=HYPERLINK("http://evil")', "javascript:alert(1)", "\u2028\u2029\ufeff", "x" * 300,
)  # fmt: skip
#: The last digit is lost in a number of JavaScript.
LARGE = 2**53 + 1

#: A frame of the application, and below it one of a library.
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/mail.py", line 3, in send
    deliver(order)
  File "/usr/lib/python3.11/smtplib.py", line 255, in connect
    raise ValueError(order)"""


def job(database: Database, **columns: Any) -> int:
    """Insert a job; columns are those of the table, with JSON as Python values. Return its id."""
    values: dict[str, Any] = {"queue": "mail", "task": "shop.send", "priority": 5, "state": "available"} | columns
    for name in ("args", "errors", "progress", "meta", "result"):
        if name in values:
            values[name] = json.dumps(values[name])
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    with database.connect() as conn:
        insert = f"INSERT INTO qworker.job ({names}) VALUES ({marks}) RETURNING id"  # noqa: S608 - names of our own
        row = conn.execute(insert, list(values.values()))
        (found,) = row.fetchone() or (0,)
    return int(found)


def failed(database: Database, message: str = "no such order", number: int = 1, **columns: Any) -> int:
    """Insert a job that has failed with an error of the group `number`."""
    error = {
        "at": "2026-11-27T12:00:05.000+00:00", "attempt": 1, "type": "ValueError", "message": message, "ran": 2.5,
        "traceback": f"{TRACEBACK}\nValueError: {message}",
        "fingerprint": f"{number:016x}", "group": {"type": "ValueError", "message": message, "frame": "shop:send"},
    }  # fmt: skip
    values = {"state": "failed", "errors": [error], "fingerprint": number, "attempt": 1, "failed_at": datetime.now(UTC)}
    return job(database, **values | columns)
