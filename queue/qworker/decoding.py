"""JSON on its way out of the database, where anybody may have put it: what cannot be read is shown as that."""

import json
import re
from typing import Any, Final

#: Lists and objects inside each other; a reader's recursion has to come out again. Above what enqueueing allows.
MAX_DEPTH: Final = 250
#: How much of what cannot be read is kept (characters).
MAX_SHOWN: Final = 1_000

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|([\[{])|[\]}]')


class Unreadable(dict[str, str]):
    """Stands in a job where JSON should be that Python cannot read, or not as what it should be."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(unreadable=reason, text=text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def decode(text: str | None) -> Any:
    """Return the value of a JSON text, None for None.

    A number with more digits than Python reads (sys.set_int_max_str_digits) stays a string of digits. What cannot be
    read is Unreadable.
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
    """Return the JSON object of a text; Unreadable if it is anything else."""
    found = decode(text)
    return found if isinstance(found, dict) else Unreadable("not an object", text or "null")


def decode_errors(text: str | None) -> tuple[dict[str, Any], ...]:
    """Return the errors of a job's attempts; what is no object among them is Unreadable."""
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
