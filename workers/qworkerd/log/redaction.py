"""Masks the password of the database in everything that is logged, printed and stored."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import isfinite
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

from qworker.db.dsn import secrets
from qworker.redaction import MASK, MAX_LENGTH, redact, shorten

#: Minimum length of a password that is masked wherever it appears: a shorter one may be part of any word.
MIN_SECRET_LENGTH: Final = 6
#: Maximum number of known passwords; if passwords rotate, the oldest are no longer valid.
MAX_SECRETS: Final = 32
#: Maximum depth of nested lists and mappings.
MAX_DEPTH: Final = 8
#: Maximum number of their parts, in total.
MAX_PARTS: Final = 1_000
#: Size of the largest integer that is written in full (bits); Python refuses to convert much larger ones.
_MAX_BITS: Final = 10_000

_SECRET_KEYS: Final = frozenset({"password", "passwd", "pgpassword", "sslpassword"})
#: The encodings of a password in URLs.
_URL_ENCODINGS: Final = (partial(quote, safe=""), quote_plus)
#: The known passwords, each with the forms in which it may appear.
_secrets: dict[str, tuple[str, ...]] = {}

Part = TypeVar("Part")


def register_secret(dsn: str) -> None:
    """Register the password of a connection string, which is then masked wherever it appears.

    `qworker.redaction` finds passwords by their context, such as a connection string. A registered password is found
    without any context, in plain text and URL-encoded. A password that equals the name of the user, host or database is
    not masked. If the string is malformed, every part that may belong to the password is registered.
    """
    for secret in secrets(dsn):
        if len(secret) >= MIN_SECRET_LENGTH:
            encoded = (_quoted(encode, secret) for encode in _URL_ENCODINGS)
            _secrets.pop(secret, None)
            _secrets[secret] = tuple(dict.fromkeys((secret, *encoded, repr(secret)[1:-1])))
    while len(_secrets) > MAX_SECRETS:
        del _secrets[next(iter(_secrets))]


def mask(text: str) -> str:
    """Return the text with passwords masked."""
    for forms in list(_secrets.values()):
        for form in forms:
            if form in text:
                text = text.replace(form, MASK)
    return redact(text)


def mask_and_shorten(text: str, longest: int = MAX_LENGTH) -> str:
    """Return the text with passwords masked, and without its middle if it is longer than `longest`."""
    return shorten(text, mask, longest)


def redact_value(value: object, key: str = "") -> object:
    """Return a value for a log line: limited in size, consisting of built-in types, with all passwords masked."""
    return _Redactor().redact(value, key)


def mask_json(value: object, key: str = "") -> object:
    """Return a decoded JSON value in full, with passwords masked and infinities and NaN as strings."""
    if key.lower() in _SECRET_KEYS:
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(name)): mask_json(part, str(name)) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_json(part) for part in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


class _Redactor:
    """Redacts one value; visits at most MAX_PARTS of its parts, however they are nested."""

    def __init__(self) -> None:
        self._remaining = MAX_PARTS

    def redact(self, value: object, key: str = "", depth: int = 0) -> object:
        if key.lower() in _SECRET_KEYS:
            return MASK
        if value is None or isinstance(value, bool) or (isinstance(value, float) and isfinite(value)):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= _MAX_BITS else f"<a number of {value.bit_length()} bits>"
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            parts = [
                (mask_and_shorten(describe(n)), self.redact(v, describe(n), depth + 1))
                for n, v in self._limited(value.items())
            ]
            return dict(parts) | self._omitted(len(value) - len(parts))
        if isinstance(value, (list, tuple, set, frozenset)) and depth < MAX_DEPTH:
            items = [self.redact(part, "", depth + 1) for part in self._limited(value)]
            return [*items, *self._omitted(len(value) - len(items)).values()]
        return mask_and_shorten(describe(value))

    def _limited(self, parts: Iterable[Part]) -> Iterator[Part]:
        for part in parts:
            if self._remaining <= 0:
                return
            self._remaining -= 1
            yield part

    def _omitted(self, count: int) -> dict[str, object]:
        return {"…": f"{count} more"} if count > 0 else {}


def describe(value: object) -> str:
    """Return a value of the application as text; never raises an error."""
    if isinstance(value, (bytes, bytearray)) and len(value) > MAX_LENGTH:
        value = value[:MAX_LENGTH]
    try:
        return str(value) if isinstance(value, (str, float, BaseException)) else repr(value)
    # The application's __repr__ may raise any exception; the rest of the line must not be lost.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"


def _quoted(quote: Callable[[str], str], secret: str) -> str:
    try:
        return quote(secret)
    except UnicodeEncodeError:  # a lone surrogate
        return secret
