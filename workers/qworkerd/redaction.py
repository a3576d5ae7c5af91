"""Keep the database's password out of what is logged or printed."""

from collections.abc import Mapping
from math import isfinite
from typing import Final
from urllib.parse import quote, quote_plus

import psycopg
from psycopg.conninfo import conninfo_to_dict

from qworker.connection import redact

MASK: Final = "***"
#: Below this length a password is not looked for by its text alone: it may be part of any word.
SHORTEST: Final = 6
#: How deep lists and mappings are looked into.
DEEPEST: Final = 8

_SECRET_KEYS: Final = frozenset({"password", "passwd", "pgpassword", "sslpassword"})
_secrets: set[str] = set()


def hide(dsn: str) -> None:
    """Remember the password of a connection string: from now on `clean` masks it wherever its text appears.

    Patterns find passwords in connection strings; this finds the known one without any context, as it is and as URLs
    write it. A password that is also the name of user, host or database stays readable as such.
    """
    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error:
        return
    names = {parts.get(key) for key in ("user", "host", "dbname")}
    for secret in (parts.get("password"), parts.get("sslpassword")):
        if secret and len(secret) >= SHORTEST and secret not in names:
            _secrets.update({secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]})


def mask(text: str) -> str:
    """Return the text without passwords."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return redact(text)


def clean(value: object, key: str = "", depth: int = 0) -> object:
    """Return a value as something JSON can hold, without passwords in any of its parts."""
    if key.lower() in _SECRET_KEYS:
        return MASK
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth < DEEPEST:
        return {mask(str(name)): clean(part, str(name), depth + 1) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < DEEPEST:
        return [clean(part, "", depth + 1) for part in value]
    return mask(_text(value))


def _text(value: object) -> str:
    try:
        return str(value) if isinstance(value, (str, float, BaseException)) else repr(value)
    # Anybody's __repr__ may raise anything; one bad value must not cost the whole line.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"
