"""Reads the text of a filter; its errors have the position of what is wrong."""

import re

from qworker.errors import QworkerError
from qworker.filters.keys import ARGS, KEYS, Key
from qworker.filters.model import Filter, Term, Value
from qworker.filters.values import read, shown
from qworker.nearest import instead

#: Characters of a filter, and values of all its terms.
MAX_LENGTH, MAX_VALUES = 2_048, 128
#: Names in the path to a value inside the arguments.
MAX_PATH = 20

_BLANK = re.compile(r"\s*")
_KEY = re.compile(r"[A-Za-z_]+")
_COMPARISON = re.compile(r"[<>]=?|=")
_BARE = re.compile(r"[^\s,\"]+")
_SEGMENT = re.compile(r"[^\s,\":.]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ID = re.compile(r"\d+(?=\s|$)", re.ASCII)


class InvalidFilter(QworkerError, ValueError):
    """A filter cannot be read; the message says what to write instead."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message)
        #: The text of the filter, and where in it the error is (characters from its beginning).
        self.text = text
        self.position = position

    def pointer(self, width: int = 78) -> str:
        """Return two lines: the text around the error, and a caret below it."""
        start = max(0, min(self.position - width // 2, len(self.text) - width))
        shown = "".join(c if c.isprintable() else "?" for c in self.text[start : start + width])
        return f"{shown}\n{' ' * (self.position - start)}^"


def parse(text: str) -> Filter:
    """Return the filter of a text; raises InvalidFilter.

    Terms are separated by blanks, and a job must match them all: `queue:mail,default -tag:test age:>1h`. A comma
    separates alternatives, `-` negates a term, and a `*` at the end of a value stands for any rest. A value with blanks
    or commas is written in double quotes. Times without an offset are in the local time zone.
    """
    return _Parser(text).filter()


def parse_stored(text: str) -> Filter:
    """Return the filter whose text is that of another one, which may be longer than what was written."""
    return _Parser(text, limited=False).filter()


class _Parser:
    def __init__(self, text: str, *, limited: bool = True) -> None:
        self._text = text
        self._limited = limited
        self._at = 0
        self._values = 0

    def filter(self) -> Filter:
        if self._limited and len(self._text) > MAX_LENGTH:
            raise self._error(f"a filter must not exceed {MAX_LENGTH} characters, not {len(self._text)}", MAX_LENGTH)
        terms = []
        self._skip(_BLANK)
        while self._at < len(self._text):
            terms.append(self._term())
            if self._at < len(self._text) and not self._skip(_BLANK):
                raise self._error('separate terms by a blank, and write a value with quotes as key:"value"')
        return Filter(tuple(terms))

    def _term(self) -> Term:
        begin = self._at
        if number := self._skip(_ID):
            return Term("id", (self._read(KEYS["id"], number, "=", begin),), position=begin)
        negated = self._accept("-")
        name_at = self._at
        name = self._skip(_KEY)
        key = KEYS.get(name.lower())
        if key is None:
            raise self._unknown(name, name_at)
        path = []
        while key.name == ARGS and self._accept("."):
            path.append(self._quoted() if self._peek() == '"' else self._expect(_SEGMENT, "a name in the arguments"))
        if key.name == ARGS and not 1 <= len(path) <= MAX_PATH:
            raise self._error(f"name a value inside the arguments, as in {key.example}", name_at)
        if not self._accept(":"):
            raise self._error(f"expected a colon and a value, as in {key.example}")
        values = [self._value(key)]
        while self._accept(","):
            values.append(self._value(key))
        return Term(key.name, tuple(values), negated, _from_positional(path), begin)

    def _value(self, key: Key) -> Value:
        begin = self._at
        comparison = self._skip(_COMPARISON) or "="
        if self._peek() == '"':
            text = self._quoted()
            begins = self._accept("*")
        else:
            text = self._expect(_BARE, f"a value, as in {key.example}")
            begins = text.endswith("*")
            text = text.removesuffix("*")
            if "*" in text:
                raise self._error(
                    "* is possible only at the end of a value; in quotes it is a character", begin + text.find("*")
                )
        if begins and comparison != "=":
            raise self._error(f"{comparison} and * cannot be combined", begin)
        self._values += 1
        if self._limited and self._values > MAX_VALUES:
            raise self._error(f"a filter must not have more than {MAX_VALUES} values", begin)
        return self._read(key, text, "*" if begins else comparison, begin)

    def _read(self, key: Key, text: str, comparison: str, begin: int) -> Value:
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise self._error("a value must not contain NUL or a surrogate, which no job can contain", begin)
        try:
            return read(key, text, comparison)
        except ValueError as error:
            raise self._error(str(error), begin) from None

    def _quoted(self) -> str:
        found = _QUOTED.match(self._text, self._at)
        if found is None:
            raise self._error('a quote is not closed; within quotes, write \\" for a quote and \\\\ for a backslash')
        self._at = found.end()
        return re.sub(r"\\(.)", r"\1", found[1])

    def _unknown(self, name: str, position: int) -> InvalidFilter:
        if not name:
            return self._error("expected a term: key:value", position)
        if self._peek() not in (":", "."):
            word = _BARE.match(self._text, position)
            return self._error(
                f"expected key:value, as in task:shop.send, not {shown(word[0] if word else name)}", position
            )
        return self._error(f"unknown key {shown(name)}; {instead(name.lower(), KEYS)}", position)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _accept(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _expect(self, pattern: re.Pattern[str], what: str) -> str:
        if found := self._skip(pattern):
            return found
        raise self._error(f"expected {what}")

    def _error(self, message: str, position: int | None = None) -> InvalidFilter:
        return InvalidFilter(message, self._text, self._at if position is None else position)


def _from_positional(path: list[str]) -> tuple[str, ...]:
    """Return the path as it is stored: arguments that were passed by position are an array with the name `*`."""
    return ("*", *path) if path and path[0].isascii() and path[0].isdigit() else tuple(path)
