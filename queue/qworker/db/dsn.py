"""Connection strings: how they are read, what is wrong with them, and how they are shown without a password.

What nobody encoded ends up in other parts of a connection string: of postgresql://u:p@ss/word@h/db libpq takes "ss" for
the host. Therefore nothing of a string is shown, and nothing of what libpq says about it, unless its parts are
beyond doubt.
"""

import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker.errors import ConfigurationError
from qworker.redaction import MASK, redact

_SECRET: Final = ("password", "sslpassword")
#: What is shown, passwords as ***: nothing else, as options may hold anything.
_SHOWN: Final = ("service", "user", *_SECRET, "host", "hostaddr", "port", "dbname", "sslmode", "target_session_attrs")

_URL = re.compile(r"postgres(?:ql)?://(?P<rest>.*)", re.DOTALL)
_QUERY = re.compile(r"[?&]([a-z_]{1,40})=")
_PORTS = re.compile(r"[\d,]*")
#: Where a password may begin in a string that cannot be read: the first of these that is there.
_BEGINNINGS = tuple(re.compile(text, re.IGNORECASE) for text in (r"://[^:]*:", r"passw(?:or)?d\s*=", r"^[^:=]*:"))
_SEPARATORS = re.compile(r"[\s@:/?#&'\"\\,;]+")

_ENCODE: Final = "percent-encode user and password (@ as %40, / as %2F, : as %3A, % as %25, a blank as %20)"


def parse(dsn: str) -> dict[str, Any]:
    """Return the parts of a connection string; raises ConfigurationError, which shows no part of it."""
    try:
        return conninfo_to_dict(dsn)
    # ValueError: a NUL, or half of a surrogate pair.
    except (psycopg.Error, ValueError):
        advice = _advice(dsn)
    raise ConfigurationError(
        f"the DSN cannot be read (it is not shown, as pieces of it may belong to the password): {advice}"
    )


def doubt(dsn: str) -> str | None:
    """Say why the parts of a connection string may not be what its author meant, and what to do; None if they are."""
    parts = parse(dsn)
    url = _URL.match(dsn.strip())
    if url and url["rest"].partition("?")[0].count("@") > 1:
        return f"there is more than one @ in the DSN: {_ENCODE}"
    if url and "@" in str(parts.get("dbname", "")) + str(parts.get("host", "")):
        return f"the DSN has an @ behind a /: {_ENCODE}"
    if re.search("[=;]", str(parts.get("host", ""))):
        return _advice(dsn)
    if not _PORTS.fullmatch(str(parts.get("port") or "")):
        return f"the port in the DSN is not a number: {_ENCODE}" if url else _advice(dsn)
    return None


def display(dsn: str) -> str:
    """Return what may be shown of a connection string: where it leads, and that it holds a password."""
    try:
        doubtful = doubt(dsn) is not None
        parts = parse(dsn)
    except ConfigurationError:
        doubtful, parts = True, {}
    if doubtful:
        return "(not shown: pieces of it may belong to the password)"
    shown = {name: MASK if name in _SECRET else parts[name] for name in _SHOWN if parts.get(name)}
    return redact(make_conninfo("", **shown))


def secrets(dsn: str) -> set[str]:
    """Return the passwords of a connection string; where its parts are in doubt, all that may be a piece of one."""
    try:
        parts = parse(dsn)
        doubtful = doubt(dsn) is not None
    except ConfigurationError:
        parts, doubtful = {}, True
    found = {str(parts[name]) for name in _SECRET if parts.get(name)}
    found |= {secret.strip() for secret in found}
    names = {str(parts.get(name)) for name in ("user", "host", "dbname")}
    return (found - names) | (_pieces(dsn) if doubtful else set())


def _pieces(dsn: str) -> set[str]:
    begin = next((found for pattern in _BEGINNINGS if (found := pattern.search(dsn))), None)
    text = dsn[begin.end() :] if begin else dsn
    if "@" in text:
        text = text.rpartition("@")[0]
    # Without the names of further options, which are words of every message.
    return {piece for piece in (text.strip(), *_SEPARATORS.split(text)) if piece and not re.match(r"[a-z_]+=", piece)}


def _advice(dsn: str) -> str:
    """Say what to do about a connection string that libpq cannot read, or reads differently than it was meant."""
    text = dsn.strip()
    if text[:1] in ("'", '"') and "://" in text:
        return "take the quotation marks off"
    if url := _URL.match(text):
        rest, last = url["rest"], url["rest"].rfind("@")
        if "@" in rest and rest.find("?") > last:
            unknown = [name for name in _QUERY.findall(rest[rest.find("?") :]) if not _known(name)]
            if unknown:
                return f"libpq has no option {unknown[0]!r}: take it out of the URL"
        if re.search(r"\s", rest):
            return (
                "there is a blank or a line break in it: take it out (a secret from a file?), or write it as %20, %0A"
            )
        return f"in a URL {_ENCODE}"
    if "://" in text or re.match(r"[^\s=]*:[^\s=]*@", text):
        return f"it has to begin with postgresql://; {_ENCODE}"
    return (
        "in key=value form a value with blanks or quotation marks needs single quotes, with \\' for ' and \\\\ for \\: "
        "password='it\\'s me'; a URL begins with postgresql://"
    )


def _known(name: str) -> bool:
    try:
        make_conninfo("", **{name: "1"})
    except psycopg.Error:
        return False
    return True
