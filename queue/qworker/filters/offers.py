"""What can complete a term that compares arguments: names and values that a sample of jobs has."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qworker.filters.keys import ARGS
from qworker.filters.model import Value, written_path
from qworker.filters.parse import MAX_PATH

#: Offers, elements of an array that are offered by their index, and characters of a name or a value.
MAX_OFFERS: Final = 50
MAX_INDEX: Final = 5
MAX_CHARACTERS: Final = 200

#: Where positional arguments are stored: an array.
_POSITIONAL = "*"
_BEGINNING = re.compile(rf"(-?){ARGS}\.", re.IGNORECASE)
_SEGMENT = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^\s,":.]+)')
_OPEN_QUOTE = re.compile(r'"((?:[^"\\]|\\["\\])*)\Z')
_WHOLE_VALUE = re.compile(r'(?:(?:[<>]=?|=)?(?:"(?:[^"\\]|\\["\\])*"\*?|[^\s,"]+)),')
_BARE_VALUE = re.compile(r"=?([^\s,\"<>=*][^\s,\"*]*)?\Z")

#: The names, and indexes of arrays, that lead to a part of the arguments.
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A term that continues what was typed."""

    #: The whole term: args.user.id:42.
    text: str
    #: The name or the value.
    label: str
    #: How many jobs of the sample have it.
    jobs: int
    #: Whether the term goes on: with a name, or with a value.
    open: bool


class Literal(str):
    """A number, as it is written in JSON and compared by a filter."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Typed:
    """The beginning of a term."""

    #: What stays as it is.
    start: str
    path: Path
    #: The beginning of the name or the value that is completed.
    last: str
    #: Whether a value is completed.
    is_value: bool


def is_argument(word: str) -> bool:
    """Return whether a word is the beginning of a term that compares arguments."""
    return _BEGINNING.match(word) is not None


def read_sample(texts: Iterable[str]) -> list[Any]:
    """Return arguments from their JSON, with numbers as they are written there; what cannot be read is left out."""
    found = []
    for text in texts:
        try:
            found.append(json.loads(text, parse_int=Literal, parse_float=Literal, parse_constant=Literal))
        except (ValueError, RecursionError):
            continue
    return found


def offers(word: str, sample: Sequence[Any], shown: Callable[[Path, Any], bool]) -> list[Offer]:
    """Return what can complete a word: the most frequent names or values of a sample first.

    A filter with an offer reads back the very name or value. shown: whether a value at a path may be offered; what is
    long, or has characters that cannot be typed, is never offered. A name is asked for with None.
    """
    typed = _read(word)
    if typed is None or len(typed.path) + (not typed.is_value) > MAX_PATH:
        return []
    found: Counter[tuple[str, str, bool]] = Counter()
    path = (_POSITIONAL, *typed.path) if typed.path and _is_index(typed.path[0]) else typed.path
    for arguments in sample:
        part = _part(arguments, path)
        new = _values(typed, path, part, shown) if typed.is_value else _names(typed, path, part, shown)
        found.update(set(new))
    part = typed.last.casefold()
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    fitting = [item for item in ranked if part in item[0][1].casefold() and item[0][0] != word]
    # What begins with the typed part comes before what contains it.
    fitting.sort(key=lambda item: not item[0][1].casefold().startswith(part))
    return [Offer(text, label, jobs, goes_on) for (text, label, goes_on), jobs in fitting[:MAX_OFFERS]]


def _read(word: str) -> _Typed | None:
    """Return the beginning of a term; None if it is not one."""
    beginning = _BEGINNING.match(word)
    if beginning is None:
        return None
    at, path = beginning.end(), list[str]()
    while segment := _SEGMENT.match(word, at):
        name = segment[2] if segment[1] is None else _unescaped(segment[1])
        after = word[segment.end() : segment.end() + 1]
        if after == "":
            return _Typed(word[:at], tuple(path), name, is_value=False)
        path.append(name)
        at = segment.end() + 1
        if after == ":":
            return _read_value(word, at, tuple(path))
        if after != ".":
            return None
    quote = _OPEN_QUOTE.match(word, at)
    if quote is None and at < len(word):
        return None
    return _Typed(word[:at], tuple(path), _unescaped(quote[1]) if quote else "", is_value=False)


def _read_value(word: str, at: int, path: Path) -> _Typed | None:
    """Return the last value, which begins behind the last comma."""
    while value := _WHOLE_VALUE.match(word, at):
        at = value.end()
    if quote := _OPEN_QUOTE.match(word, at):
        return _Typed(word[:at], path, _unescaped(quote[1]), is_value=True)
    bare = _BARE_VALUE.match(word, at)
    return None if bare is None else _Typed(word[:at], path, bare[1] or "", is_value=True)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _part(arguments: Any, path: Path) -> Any:
    """Return the part of arguments at a path; None if there is none."""
    for name in path:
        if isinstance(arguments, Mapping):
            arguments = arguments.get(name)
        elif isinstance(arguments, list) and _is_index(name) and len(name) <= len(str(MAX_PATH)) + 4:
            arguments = arguments[int(name)] if int(name) < len(arguments) else None
        else:
            return None
    return arguments


def _names(typed: _Typed, path: Path, part: Any, shown: Callable[[Path, Any], bool]) -> Iterable[tuple[str, str, bool]]:
    """Yield the names in a part: what the term is then, the name, and that it goes on."""
    for name, value in _members(path, part):
        if value is None or not _typeable(name) or not shown((*path, name), None):
            continue
        inner = isinstance(value, (Mapping, list))
        if not inner or any(True for _ in _members((*path, name), value)):
            yield f"{typed.start}{written_path((name,))}{'.' if inner else ':'}", name, True


def _members(path: Path, part: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(part, Mapping):
        for name, value in part.items():
            if path or not (_is_index(name) or name == _POSITIONAL):
                yield name, value
            elif name == _POSITIONAL and isinstance(value, list):
                # A filter names positional arguments by their index; no other name of digits can be written.
                yield from _members((_POSITIONAL,), value)
    elif isinstance(part, list):
        yield from ((str(index), value) for index, value in enumerate(part[:MAX_INDEX]))


def _values(
    typed: _Typed, path: Path, part: Any, shown: Callable[[Path, Any], bool]
) -> Iterable[tuple[str, str, bool]]:
    """Yield the value of a part, as a filter compares it."""
    text = {True: "true", False: "false"}[part] if isinstance(part, bool) else part
    if isinstance(text, str) and _typeable(text, empty=True) and shown(path, part):
        yield f"{typed.start}{Value(text, text=text)}", text, False


def _typeable(text: str, *, empty: bool = False) -> bool:
    """Return whether a text is short and has only characters that one sees and can type."""
    return len(text) <= MAX_CHARACTERS and text.isprintable() and (empty or text != "")


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()
