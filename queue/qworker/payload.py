"""Binds arguments to a task's signature and encodes arguments and results as JSON of limited size."""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from qworker.errors import ConfigurationError, PayloadTooLarge

#: The arguments of one job: by position, or by name.
Row: TypeAlias = Sequence[Any] | Mapping[str, Any]

#: Maximum size of a job's arguments in bytes, as compact JSON in UTF-8.
MAX_ARGS = 256 * 1024
#: Maximum size of a job's result in bytes.
MAX_RESULT = 64 * 1024
#: Maximum nesting of lists and objects, limited because JSON decoders are recursive.
MAX_DEPTH = 200
#: The key under which arguments are stored that can only be passed by position.
POSITIONAL = "*"

# A value that contains itself raises RecursionError; the encoder's check for it would cost a third more.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode

_CONTAINERS = (dict, list, tuple)
_SCALARS = frozenset({str, int, float, bool, type(None)})

# Matches a string, which is left unchanged, or a number with a positive exponent.
_POWER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[\d.]+e\+\d+)')

_HINTS = {
    "datetime.datetime": "pass value.isoformat()",
    "datetime.date": "pass value.isoformat()",
    "datetime.time": "pass value.isoformat()",
    "datetime.timedelta": "pass value.total_seconds()",
    "decimal.Decimal": "pass str(value)",
    "uuid.UUID": "pass str(value)",
    "builtins.bytes": "pass value.decode() or base64",
    "builtins.set": "pass sorted(value)",
    "builtins.frozenset": "pass sorted(value)",
    "enum.Enum": "pass value.value",
    "pathlib.PurePath": "pass str(value)",
}


class Parameters:
    """The parameters of a task, analyzed once."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self._name = name
        try:
            self._signature = inspect.signature(call)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}; wrap it in a function that has a signature") from None
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        self._variadic = inspect.Parameter.VAR_POSITIONAL in kinds
        self._leading = sum(p.kind is p.POSITIONAL_ONLY for p in self._signature.parameters.values())
        # If all parameters are of the most common kind, binding without inspect takes a tenth of the time.
        self._simple = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self._names = tuple(self._signature.parameters)
        self._known = frozenset(self._names)
        #: The names of the parameters that can be passed by position.
        self.positional = tuple(
            p.name for p in self._signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
        )
        self._required = frozenset(n for n, p in self._signature.parameters.items() if p.default is p.empty)

    def check_call_without_arguments(self) -> None:
        """Raise TypeError if the signature requires arguments."""
        try:
            self._signature.bind()
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None

    def bind_plain(self, row: Row) -> dict[str, Any] | None:
        """Return the arguments of a row as they are stored; None if `bind` is needed.

        Like `encode_plain`, it never calls the caller's code, neither for a row nor for an error message.
        """
        if not self._simple:
            return None
        if type(row) is tuple or type(row) is list:
            fits = len(self._required) <= len(row) <= len(self._names)
            return dict(zip(self._names, row, strict=False)) if fits else None
        if type(row) is dict and all(type(name) is str for name in row):
            return dict(row) if self._required <= row.keys() <= self._known else None
        return None

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are stored: by name, or under "*" if they can only be passed by position.

        Defaults are not stored; the handler applies them when it runs. Raises TypeError as the signature would.
        """
        if self._simple and not kwargs and len(self._required) <= len(args) <= len(self._names):
            return dict(zip(self._names, args, strict=False))
        if self._simple and not args and self._required <= kwargs.keys() <= self._known:
            return dict(kwargs)
        if POSITIONAL in kwargs:
            raise TypeError(f"{self._name}: {POSITIONAL!r} is not a valid argument name")
        try:
            found = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None
        leading = len(found.args) if self._variadic else min(self._leading, len(found.args))
        stored = dict(zip(self._names[leading:], found.args[leading:], strict=False)) | found.kwargs
        return {POSITIONAL: found.args[:leading], **stored} if leading else stored


def truncate(text: str, max_length: int = 200) -> str:
    """Return a string, truncated for an error message if it is longer than max_length."""
    return text if len(text) <= max_length else f"{text[:max_length]}... ({len(text):,} characters)"


def as_stored(given: Row) -> dict[str, Any]:
    """Return arguments by name or by position as they are stored, for a task of which nothing is known."""
    stored = dict(given) if isinstance(given, Mapping) else {POSITIONAL: list(given)}
    encode(stored)
    return stored


def encode(args: Mapping[str, Any]) -> str:
    """Return a job's arguments as compact JSON.

    Tuples become lists. Raises TypeError if a value is not JSON serializable, and ValueError for NaN, infinity, NUL
    characters, lone surrogates and deep nesting; the message names the path. Raises PayloadTooLarge above MAX_ARGS.
    """
    return _encode(args, "args", MAX_ARGS)


def encode_plain(args: dict[str, Any]) -> str | None:
    """Return the same as `encode`, or None if `encode` is needed, as for all arguments that it rejects."""
    if not _built_in(args.values(), 0):
        return None
    try:
        text = _encode_json(args)
        size = len(text) if text.isascii() else len(text.encode())
    except (ValueError, RecursionError):
        return None
    return None if "e+" in text or "\\u0000" in text or size > MAX_ARGS else text


def _built_in(values: Iterable[Any], depth: int) -> bool:
    """Return whether all values are of exact built-in types, so that encoding them calls no user code."""
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is dict:
            if not all(type(key) is str for key in value):
                return False
            inner: Iterable[Any] = value.values()
        elif kind is list or kind is tuple:
            inner = value
        else:
            return False
        if depth >= MAX_DEPTH or not _built_in(inner, depth + 1):
            return False
    return True


def encode_result(value: Any) -> str | None:
    """Return a handler's result as compact JSON, None for None; raises as `encode` does, above MAX_RESULT."""
    return None if value is None else _encode(value, "result", MAX_RESULT)


def _encode(value: Any, root: str, limit: int) -> str:
    try:
        text = _encode_json(value)
        if "e+" in text:
            text = _POWER.sub(_spell_out, text)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError):
        _refuse(value, root)
        raise
    if "\\u0000" in text or (isinstance(value, _CONTAINERS) and not _plain(value, 0)):
        # Does not raise if the string contains a literal backslash followed by "u0000".
        _refuse(value, root)
    if size > limit:
        raise PayloadTooLarge(
            f"{root} takes {size:,} bytes as JSON, more than {limit:,}: store the data and pass a reference to it"
        )
    return text


def _spell_out(found: re.Match[str]) -> str:
    # jsonb stores 1e+300 as an integer of 301 digits and returns it as one; with a decimal point it stays a float.
    return f"{Decimal(found[1]):f}.0" if found[1] else found[0]


def _plain(value: Any, depth: int) -> bool:
    """Return whether all keys are strings, which the encoder does not check, and the nesting is limited."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return False
        value = value.values()
    for item in value:
        if isinstance(item, _CONTAINERS) and (depth >= MAX_DEPTH or not _plain(item, depth + 1)):
            return False
    return True


def _refuse(value: Any, root: str) -> None:
    """Raise an error that names the path of the first part of the value that cannot be stored."""
    for path, part in _parts(value, root, 0):
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str):
                    raise TypeError(
                        f"{path}: the key {truncate(repr(key))} is {_kind(key)}; keys of a JSON object must be strings"
                    )
                _check_text(f"{path}: the key {truncate(repr(key))}", key)
        elif isinstance(part, str):
            _check_text(path, part)
        elif isinstance(part, float):
            if not math.isfinite(part):
                raise ValueError(f"{path}: {part!r} is not JSON serializable; pass None or a string")
        elif isinstance(part, int):
            _check_digits(path, part)
        elif part is not None and not isinstance(part, list | tuple):
            raise TypeError(f"{path}: {_kind(part)} is not JSON serializable{_hint(part)}")


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    yield path, value
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        # The path of a positional argument is args[0].
        inner = ((path if key == POSITIONAL and not depth else f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{at}]", item) for at, item in enumerate(value))
    for name, item in inner:
        if depth >= MAX_DEPTH and isinstance(item, _CONTAINERS):
            raise ValueError(f"{name[:80]}...: nested more than {MAX_DEPTH} levels deep, or containing itself")
        yield from _parts(item, name, depth + 1)


def _check_text(path: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{path}: contains a NUL character at {text.index(chr(0))}, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path}: contains a lone surrogate at {error.start} ({text[error.start]!r}), which UTF-8 cannot encode; "
            "a file name? pass os.fsencode(value).hex()"
        ) from None


def _check_digits(path: str, number: int) -> None:
    try:
        str(number)
    except ValueError:
        raise ValueError(f"{path}: the number has too many digits for JSON ({number.bit_length()} bits)") from None


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _hint(value: Any) -> str:
    for kind in type(value).__mro__:
        if hint := _HINTS.get(f"{kind.__module__}.{kind.__qualname__}"):
            return f"; {hint}"
    return "; pass numbers, strings, lists and dicts, or the id of an object stored elsewhere"
