"""Arguments and results on their way into the database: bound to the signature, and plain JSON within bounds."""

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

#: Bytes that a job's arguments may take, as compact JSON in UTF-8.
MAX_ARGS = 256 * 1024
#: Bytes that a job's result may take.
MAX_RESULT = 64 * 1024
#: Lists and objects inside each other; a reader's recursion has to come out again.
MAX_DEPTH = 200
#: The key under which positional arguments are stored, where a signature leaves no other way.
POSITIONAL = "*"

# A value that contains itself ends in RecursionError, for a third less than looking out for it.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode

_CONTAINERS = (dict, list, tuple)
_SCALARS = frozenset({str, int, float, bool, type(None)})

# A text, which is left alone, or a number in powers of ten.
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
    """What a task takes, worked out once."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self._name = name
        try:
            self._signature = inspect.signature(call)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}; wrap it in a function that has a signature") from None
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        self._variadic = inspect.Parameter.VAR_POSITIONAL in kinds
        self._leading = sum(p.kind is p.POSITIONAL_ONLY for p in self._signature.parameters.values())
        # Only the commonest kind of parameter: bound by hand, in a tenth of the time.
        self._simple = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self._names = tuple(self._signature.parameters)
        self._known = frozenset(self._names)
        self._required = frozenset(n for n, p in self._signature.parameters.items() if p.default is p.empty)

    def bind_plain(self, row: Row) -> dict[str, Any] | None:
        """Return the arguments of a row as they are stored; None when `bind` has to look at them.

        Like `encode_plain` it calls no code but its own and Python's, neither for a row nor for an error.
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
        """Return the arguments as they are stored: by name, and under "*" what can be given by position alone.

        Defaults are left out: they are the handler's when it runs. Raises TypeError for what the signature refuses.
        """
        if self._simple and not kwargs and len(self._required) <= len(args) <= len(self._names):
            return dict(zip(self._names, args, strict=False))
        if self._simple and not args and self._required <= kwargs.keys() <= self._known:
            return dict(kwargs)
        if POSITIONAL in kwargs:
            raise TypeError(f"{self._name}: {POSITIONAL!r} is no name for an argument")
        try:
            found = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None
        leading = len(found.args) if self._variadic else min(self._leading, len(found.args))
        stored = dict(zip(self._names[leading:], found.args[leading:], strict=False)) | found.kwargs
        return {POSITIONAL: found.args[:leading], **stored} if leading else stored


def brief(text: str, longest: int = 200) -> str:
    """Return a text cut to what a message may hold."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def encode(args: Mapping[str, Any]) -> str:
    """Return a job's arguments as compact JSON.

    Tuples become lists, as JSON knows no others. Raises TypeError for what is no JSON, ValueError for NaN, infinity,
    NUL characters, lone surrogates and bottomless nesting, each naming the path; PayloadTooLarge above MAX_ARGS.
    """
    return _encode(args, "args", MAX_ARGS)


def encode_plain(args: dict[str, Any]) -> str | None:
    """Return what `encode` does; None when that has to look at the arguments, as at everything that it refuses."""
    if not _built_in(args.values(), 0):
        return None
    try:
        text = _encode_json(args)
        size = len(text) if text.isascii() else len(text.encode())
    except (ValueError, RecursionError):
        return None
    return None if "e+" in text or "\\u0000" in text or size > MAX_ARGS else text


def _built_in(values: Iterable[Any], depth: int) -> bool:
    """Tell whether all values are of the built-in types themselves, of which no method is anybody's."""
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
        # Refused with the path, unless it is a backslash and "u0000" that somebody wrote.
        _refuse(value, root)
    if size > limit:
        raise PayloadTooLarge(
            f"{root} takes {size:,} bytes as JSON, more than {limit:,}: store the data and pass a reference to it"
        )
    return text


def _spell_out(found: re.Match[str]) -> str:
    # jsonb stores 1e+300 as an integer of 301 digits, and that would come back; with a point it stays the float it was.
    return f"{Decimal(found[1]):f}.0" if found[1] else found[0]


def _plain(value: Any, depth: int) -> bool:
    """Tell whether all keys are texts, which the encoder does not mind, and the nesting is bounded."""
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
    """Raise for the first part of the value that cannot be stored, with its path."""
    for path, part in _parts(value, root, 0):
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str):
                    raise TypeError(
                        f"{path}: the key {brief(repr(key))} is {_kind(key)}; a JSON object has texts for keys"
                    )
                _check_text(f"{path}: the key {brief(repr(key))}", key)
        elif isinstance(part, str):
            _check_text(path, part)
        elif isinstance(part, float):
            if not math.isfinite(part):
                raise ValueError(f"{path}: {part!r} is no JSON; pass None, or a text")
        elif isinstance(part, int):
            _check_digits(path, part)
        elif part is not None and not isinstance(part, list | tuple):
            raise TypeError(f"{path}: {_kind(part)} is no JSON{_hint(part)}")


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    yield path, value
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        # Positional arguments are named by their place alone: args[0].
        inner = ((path if key == POSITIONAL and not depth else f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{at}]", item) for at, item in enumerate(value))
    for name, item in inner:
        if depth >= MAX_DEPTH and isinstance(item, _CONTAINERS):
            raise ValueError(f"{name[:80]}...: nested more than {MAX_DEPTH} levels deep, or containing itself")
        yield from _parts(item, name, depth + 1)


def _check_text(path: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{path}: holds a NUL character at {text.index(chr(0))}, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path}: holds a lone surrogate at {error.start} ({text[error.start]!r}), which is no text; "
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
    return "; pass numbers, texts, lists and dicts, or the id of what is stored elsewhere"
