"""Keep the database's password out of what is logged, printed and stored."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import isfinite
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

from qworker.db.dsn import secrets
from qworker.redaction import MASK, MAX_LENGTH, redact, shorten

#: Below this length a password is not looked for by its text alone: it may be part of any word.
MIN_SECRET_LENGTH: Final = 6
#: How many known passwords are looked for, the newest: where they rotate, the oldest open nothing any more.
REMEMBERED: Final = 32
#: How deep lists and mappings are looked into.
MAX_DEPTH: Final = 8
#: How many of their parts are shown, in all.
WIDEST: Final = 1_000
#: Bits of the longest number that is written with all its digits: Python refuses to write longer ones.
_DIGITS: Final = 10_000

_SECRET_KEYS: Final = frozenset({"password", "passwd", "pgpassword", "sslpassword"})
#: How URLs write a password.
_WAYS: Final = (partial(quote, safe=""), quote_plus)
#: The known passwords, each with the shapes in which it may appear.
_secrets: dict[str, tuple[str, ...]] = {}

Part = TypeVar("Part")


def register_secret(dsn: str) -> None:
    """Remember the password of a connection string: from now on it is masked wherever its text appears.

    Patterns find passwords in connection strings; this finds the known one without any context, as it is and as URLs
    write it. A password that is also the name of user, host or database stays readable as such. Of a string that was
    not written as it should be, everything that may be a piece of the password is remembered.
    """
    for secret in secrets(dsn):
        if len(secret) >= MIN_SECRET_LENGTH:
            shapes = dict.fromkeys((secret, *(_quoted(way, secret) for way in _WAYS), repr(secret)[1:-1]))
            _secrets.pop(secret, None)
            _secrets[secret] = tuple(shapes)
    while len(_secrets) > REMEMBERED:
        del _secrets[next(iter(_secrets))]


def mask(text: str) -> str:
    """Return the whole text without passwords."""
    for shapes in list(_secrets.values()):
        for shape in shapes:
            if shape in text:
                text = text.replace(shape, MASK)
    return redact(text)


def clip(text: str, longest: int = MAX_LENGTH) -> str:
    """Return the text without passwords, and without its middle if it is longer than that."""
    return shorten(text, mask, longest)


def redact_value(value: object, key: str = "") -> object:
    """Return a value as something a log line can hold: bounded, plain, without passwords in any of its parts."""
    return _Cleaner().clean(value, key)


def keep(value: object, key: str = "") -> object:
    """Return a value that came as JSON, whole, without passwords, and with no number that JSON cannot hold."""
    if key.lower() in _SECRET_KEYS:
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(name)): keep(part, str(name)) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [keep(part) for part in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


class _Cleaner:
    """Cleans one value; looks into so many parts and no more, however they are nested."""

    def __init__(self) -> None:
        self._left = WIDEST

    def clean(self, value: object, key: str = "", depth: int = 0) -> object:
        if key.lower() in _SECRET_KEYS:
            return MASK
        if value is None or isinstance(value, bool) or (isinstance(value, float) and isfinite(value)):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= _DIGITS else f"<a number of {value.bit_length()} bits>"
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            parts = [(clip(_text(n)), self.clean(v, _text(n), depth + 1)) for n, v in self._some(value.items())]
            return dict(parts) | self._rest(len(value) - len(parts))
        if isinstance(value, (list, tuple, set, frozenset)) and depth < MAX_DEPTH:
            items = [self.clean(part, "", depth + 1) for part in self._some(value)]
            return [*items, *self._rest(len(value) - len(items)).values()]
        return clip(_text(value))

    def _some(self, parts: Iterable[Part]) -> Iterator[Part]:
        for part in parts:
            if self._left <= 0:
                return
            self._left -= 1
            yield part

    def _rest(self, count: int) -> dict[str, object]:
        return {"…": f"{count} more"} if count > 0 else {}


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray)) and len(value) > MAX_LENGTH:
        value = value[:MAX_LENGTH]
    try:
        return str(value) if isinstance(value, (str, float, BaseException)) else repr(value)
    # Anybody's __repr__ may raise anything; one bad value must not cost the whole line.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"


def _quoted(quote: Callable[[str], str], secret: str) -> str:
    try:
        return quote(secret)
    except UnicodeEncodeError:  # half of a surrogate pair
        return secret
