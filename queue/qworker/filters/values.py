"""Converts the values of a filter: integers, durations, times and numbers."""

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from qworker.filters.keys import Key, Kind
from qworker.filters.model import Operand, Value, quoted
from qworker.nearest import instead

#: The longest duration (seconds): a hundred years.
MAX_DURATION = 3_155_760_000.0
#: Digits and exponent of a number that is compared with one in the arguments.
MAX_DIGITS, MAX_EXPONENT = 40, 400

_WITH_PREFIX = (Kind.TEXT, Kind.ARGUMENT, Kind.FINGERPRINT)
#: The kinds of keys whose values can be compared by < and >.
WITH_COMPARISON = (Kind.INTEGER, Kind.DURATION, Kind.ARGUMENT)
#: Characters of a value that an error quotes.
_MAX_SHOWN = 40

_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|[dhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d.*", re.ASCII)


def read(key: Key, text: str, comparison: str) -> Value:
    """Return the value of a key; raises ValueError with what is expected."""
    _check(key, text, comparison)
    number = comparison not in ("=", "*")
    operand: Operand = text
    match key.kind:
        case Kind.INTEGER:
            operand = _integer(key, text)
        case Kind.DURATION:
            operand = _duration(key, text)
        case Kind.TIME:
            operand = _time(key, text)
        case Kind.CHOICE:
            operand = _choice(key, text)
        case Kind.FINGERPRINT:
            operand = _fingerprint(text, comparison)
        case Kind.ARGUMENT if number:
            operand = _number(key, text)
        case _:
            pass
    return Value(operand, comparison, text)


def _check(key: Key, text: str, comparison: str) -> None:
    """Refuse comparisons that are not possible with a key."""
    if comparison == "=":
        if key.kind is Kind.DURATION:
            raise ValueError(f"compare {key.name} with a duration by < or >, as in {key.example}")
        if text == "" and key.kind is not Kind.ARGUMENT:
            raise ValueError(f"the value of {key.name} is empty")
    elif key.kind not in (_WITH_PREFIX if comparison == "*" else WITH_COMPARISON):
        raise ValueError(f"{comparison} is not possible with {key.name}; write {key.example}")


def _integer(key: Key, text: str) -> int:
    number = int(text) if _INTEGER.fullmatch(text) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(f"{shown(text)} is not an integer of 64 bits; write {key.example}")
    return number


def _duration(key: Key, text: str) -> float:
    parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text, re.ASCII):
        raise ValueError(f"{text} has no unit; write {text}s, or use ms, m, h or d")
    scales = [_UNITS[unit] for _, unit in parts]
    if not parts or sorted(set(scales), reverse=True) != scales or seconds > MAX_DURATION:
        raise ValueError(f"{shown(text)} is not a duration of up to a hundred years; write {key.example}")
    return seconds


def _time(key: Key, text: str) -> datetime:
    # Other forms that fromisoformat() reads, such as 20260131 and 2026-W05, are more often mistakes.
    written = text if _TIME.fullmatch(text) else ""
    try:
        return datetime.fromisoformat(written).astimezone(UTC)  # a time without an offset is in the local zone
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{shown(text)} is not a time; write {key.example}") from None


def _choice(key: Key, text: str) -> str:
    word = text.lower()
    if word in key.choices:
        return word
    raise ValueError(f"unknown {key.name} {shown(text)}; {instead(word, key.choices)}")


def _fingerprint(text: str, comparison: str) -> str:
    digits = text.lower()
    if comparison == "*":
        if not re.fullmatch(r"[0-9a-f]{1,16}", digits):
            raise ValueError(f"{shown(text)} is not the beginning of a fingerprint, which has 16 hexadecimal digits")
    elif not re.fullmatch(r"[0-9a-f]{16}", digits):
        raise ValueError(
            f"{shown(text)} is not a fingerprint, which has 16 hexadecimal digits; for its beginning, end it with *"
        )
    return digits


def _number(key: Key, text: str) -> Decimal:
    try:
        number = Decimal(text) if _NUMBER.fullmatch(text) and len(text) <= MAX_DIGITS else None
    except InvalidOperation:
        number = None
    if number is None or abs(number.adjusted()) > MAX_EXPONENT:
        raise ValueError(f"{shown(text)} is not a number, with which {key.name} can be compared by < and >")
    return number


def shown(text: str) -> str:
    """Return a value for an error: in quotes, shortened, without characters that a terminal interprets."""
    return quoted("".join(c if c.isprintable() else "?" for c in text[:_MAX_SHOWN]) + "…" * (len(text) > _MAX_SHOWN))
