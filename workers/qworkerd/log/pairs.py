"""Two parts of JSON side by side: masked as in the whole of which they are part, and cut around where they differ."""

import json
from collections.abc import Sequence
from typing import Any

from qworker.differences import Difference, Differences, EqualPart
from qworker.filters.offers import Offer, offers
from qworkerd.log.redaction import mask, mask_and_shorten, mask_json, redact_value
from qworkerd.log.visible import visible

#: Characters that are shown of a value, and those before the first difference.
LONGEST, CONTEXT = 300, 40


def mask_part(path: Sequence[str], value: object) -> object:
    """Return a part of JSON with passwords masked as if the whole was; path: the names that lead to it."""
    for name in reversed(path):
        value = {name: value}
    found = mask_json(value)
    for _ in path:
        if not isinstance(found, dict):
            break  # a whole object is masked
        (found,) = found.values()
    return found


def is_shown(path: Sequence[str], value: object) -> bool:
    """Return whether a part of JSON is shown as it is: nothing in it, or in the names that lead to it, is masked."""
    return mask_part(path, value) == value and all(mask(name) == name for name in path)


def shown_offers(word: str, sample: Sequence[Any]) -> list[Offer]:
    """Return what can complete a word, without what is masked wherever it is shown."""
    return [one for one in offers(word, sample, is_shown) if mask(one.text) == one.text]


def masked_differences(found: Differences) -> dict[str, Any]:
    """Return the differences for JSON, with passwords masked as in the arguments themselves."""

    def part(one: Difference | EqualPart, name: str) -> object:
        return mask_part(one.path, getattr(one, name))

    return {
        "different": [
            {"path": one.path}
            | ({"a": part(one, "a")} if one.in_a else {})
            | ({"b": part(one, "b")} if one.in_b else {})
            for one in found.different
        ],
        "equal": [{"path": one.path, "value": part(one, "value")} for one in found.equal],
        "different_count": found.different_count, "equal_count": found.equal_count, "complete": found.complete,
    }  # fmt: skip


def side_by_side(path: Sequence[str], a: object, b: object, longest: int = LONGEST) -> tuple[str, str]:
    """Return two parts as JSON in one line; long ones from shortly before the place where they differ."""
    one, other = _written(path, a), _written(path, b)
    shorter = min(len(one), len(other))
    common = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), shorter)
    start = common - CONTEXT if common > CONTEXT and max(len(one), len(other)) > longest else 0
    return _cut(one, start, longest), _cut(other, start, longest)


def _written(path: Sequence[str], value: object) -> str:
    """Return JSON of limited size."""
    if isinstance(value, str):
        value = mask_and_shorten(value)
    masked = mask_part(path, redact_value(value) if isinstance(value, (dict, list)) else value)
    return json.dumps(masked, ensure_ascii=False)


def _cut(text: str, start: int, longest: int) -> str:
    part = visible(text[start : start + longest])
    return f"{'…' * (start > 0)}{part}{'…' * (len(text) > start + longest)}"
