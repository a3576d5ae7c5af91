"""Decodes JSON read from the database. Rows may have been edited by hand; invalid values become `Unreadable`."""

import json
import re
from typing import Any, Final

#: Maximum nesting, limited because json.loads is recursive. It is higher than the limit for enqueueing.
MAX_DEPTH: Final = 250
#: Maximum number of characters kept of an unreadable value.
MAX_SHOWN: Final = 1_000

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|([\[{])|[\]}]')


class Unreadable(dict[str, str]):
    """Replaces a JSON value of a job that Python cannot decode or that has the wrong type."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(unreadable=reason, text=text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def decode(text: str | None) -> Any:
    """Return the value of JSON text; None for None.

    A number with more digits than Python converts (sys.set_int_max_str_digits) is returned as a string. If the text
    cannot be decoded, an Unreadable is returned.
    """
    if text is None:
        return None
    if _too_deep(text):
        return Unreadable(f"nested more than {MAX_DEPTH} levels deep", text)
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text, parse_int=_digits)
    except ValueError as error:
        return Unreadable(str(error), text)


def decode_object(text: str | None) -> dict[str, Any]:
    """Return the JSON object of a text; an Unreadable if it is not an object."""
    found = decode(text)
    return found if isinstance(found, dict) else Unreadable("not an object", text or "null")


def decode_errors(text: str | None) -> tuple[dict[str, Any], ...]:
    """Return the errors of a job's attempts; entries that are not objects become Unreadable."""
    found = decode(text or "[]")
    entries = found if isinstance(found, list) else [] if found is None else [found]
    return tuple(entry if isinstance(entry, dict) else Unreadable("not an object", str(entry)) for entry in entries)


def _digits(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[1]:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0][0] != '"':
            depth -= 1
    return False
