"""The types of settings: how a value from text, TOML or Python is validated."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from qworker.db.statements import qualify
from qworker.durations import format_duration, parse_duration
from qworker.errors import ConfigurationError

#: Disables a limit in text and TOML, which have no None.
NONE: Final = "none"
#: Maximum length of a queue name (characters).
MAX_NAME_LENGTH: Final = 200


@dataclass(frozen=True)
class FieldSpec:
    """The specification of a setting: its documentation and validation."""

    #: The placeholder of the value in help: "SECONDS", "N".
    metavar: str
    #: The description, including special values.
    help: str
    #: Converts the value; raises ValueError with the allowed values.
    read: Callable[[object], object]


def count(default: int | Callable[[], int] | None, low: int, high: int, text: str, *, metavar: str = "N") -> Any:
    """Declare an integer; if its default is None, "none" means no limit."""

    def read(value: object) -> int | None:
        if default is None and _is_none(value):
            return None
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}{_or_none(default)}")
        return number

    return _declare(default, FieldSpec(metavar, text, read))


def seconds(default: float | None, low: float, high: float, text: str, *, optional: bool = False) -> Any:
    """Declare a duration: seconds, or units as in 5m; `optional` allows "none"."""

    def read(value: object) -> float | None:
        if optional and _is_none(value):
            return None
        try:
            number = parse_duration(value) if isinstance(value, str) else _number(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            also = f", or {NONE!r}" if optional else ""
            limits = f"from {format_duration(low)} to {format_duration(high)}"
            raise ValueError(f"must be a duration {limits}: seconds, or 5m, 1h30m, 250ms{also}")
        return number

    return _declare(default, FieldSpec("DURATION", text, read))


def string(default: str | None, metavar: str, text: str, *, secret: bool = False) -> Any:
    """Declare a string; a secret one is not shown in the settings' repr."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError("must be a string that is not empty")
        return value.strip()

    return _declare(default, FieldSpec(metavar, text, read), show=not secret)


def object_path(metavar: str, text: str, example: str) -> Any:
    """Declare the name of an object in a module."""

    def read(value: object) -> str:
        module, _, attribute = value.strip().partition(":") if isinstance(value, str) else ("", "", "")
        if not attribute or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"must be of the form package.module:attribute, for example {example}")
        return f"{module}:{attribute}"

    return _declare(None, FieldSpec(metavar, text, read))


def schema_name(default: str, text: str) -> Any:
    """Declare the name of a database schema."""

    def read(value: object) -> str:
        try:
            qualify("", str(value))
        except ConfigurationError:
            raise ValueError("must be at most 48 lower-case letters, digits and _") from None
        return str(value)

    return _declare(default, FieldSpec("NAME", text, read))


def names(default: tuple[str, ...], metavar: str, text: str) -> Any:
    """Declare a list of names: comma-separated in text, a list elsewhere; duplicates are removed."""

    def read(value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Iterable) or not all(isinstance(part, str) for part in parts):
            raise ValueError("must be names separated by commas, or a list of names")
        found = tuple(dict.fromkeys(part.strip() for part in parts))
        if not found or not all(part.isprintable() and 0 < len(part) <= MAX_NAME_LENGTH for part in found):
            raise ValueError(f"must be names of 1 to {MAX_NAME_LENGTH} printable characters, separated by commas")
        if any("," in part for part in found):
            raise ValueError("must be names without commas")
        return found

    return _declare(default, FieldSpec(metavar, text, read))


def switch(text: str) -> Any:
    """Declare a switch that is off by default."""

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("1", "true", "yes", "on"):
            return True
        if isinstance(value, str) and value.lower() in ("0", "false", "no", "off"):
            return False
        raise ValueError("must be true or false")

    return _declare(False, FieldSpec("", text, read))


def choice(default: str, options: tuple[str, ...], text: str) -> Any:
    """Declare a choice of several strings."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value.lower()

    return _declare(default, FieldSpec("|".join(options), text, read))


def _declare(default: object, spec: FieldSpec, *, show: bool = True) -> Any:
    if callable(default):
        return field(default_factory=default, repr=show, metadata={"spec": spec})
    return field(default=default, repr=show, metadata={"spec": spec})


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.lower() == NONE)


def _or_none(default: object) -> str:
    return f", or {NONE!r} for no limit" if default is None else ""
