"""Values of jobs as HTML. Whatever comes from a row is escaped."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

#: Characters of a value that are shown.
MAX_SHOWN = 20_000


def state(value: str) -> SafeString:
    """Return a state with its colour."""
    return format_html('<span class="qworker-state qworker-{}">{}</span>', value, value)


def moment(value: Any, zone: str = " %Z") -> str:
    """Return a time with seconds, in the time zone of the request. Anything else is returned as a string."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return "-" if value is None else str(value)
    with suppress(OverflowError, ValueError):  # at the ends of the years that Python knows
        value = timezone.localtime(value) if timezone.is_aware(value) else value
    return f"{value:%Y-%m-%d %H:%M:%S}{value.strftime(zone)}".strip()


def preformatted(text: str) -> SafeString:
    """Return text as it is, cut at MAX_SHOWN."""
    cut = len(text) - MAX_SHOWN
    shown = text if cut <= 0 else f"{text[:MAX_SHOWN]}\n… {cut} more characters"
    return format_html('<pre class="qworker-pre">{}</pre>', shown)


def structure(value: Any) -> SafeString | str:
    """Return a JSON value over several lines."""
    if value is None:
        return "-"
    return preformatted(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def attempts(found: list[Any]) -> SafeString | str:
    """Return the attempts that failed, the newest first and open."""
    if not found:
        return "none failed"
    return format_html_join(
        "",
        '<details class="qworker-attempt"{}><summary>Attempt {} at {}: <strong>{}</strong> {}{}</summary>{}</details>',
        (
            (
                mark_safe(" open") if index == 0 else "",
                attempt.number or "?",
                moment(attempt.at or "an unknown time"),
                attempt.type or "Unknown",
                attempt.message[:500],
                f" ({attempt.cause})" if attempt.cause else "",
                preformatted(attempt.traceback) if attempt.traceback else "",
            )
            for index, attempt in enumerate(reversed(found))
        ),
    )
