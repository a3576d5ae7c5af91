"""Connection strings: parsing, diagnosis, and display without the password.

If a password is not percent-encoded, a piece of it becomes another part of the connection string: libpq parses
postgresql://u:p@ss/word@h/db with the host "ss". A connection string and libpq's messages about it are therefore
shown only if its parts are unambiguous.
"""

import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker.errors import ConfigurationError
from qworker.redaction import MASK, redact

_SECRET: Final = ("password", "sslpassword")
#: The parameters that are shown, passwords as ***. Others, such as options, may contain anything and are left out.
_SHOWN: Final = ("service", "user", *_SECRET, "host", "hostaddr", "port", "dbname", "sslmode", "target_session_attrs")

_URL = re.compile(r"postgres(?:ql)?://(?P<rest>.*)", re.DOTALL)
_QUERY = re.compile(r"[?&]([a-z_]{1,40})=")
_PORTS = re.compile(r"[\d,]*")
#: Where a password may begin in a string that libpq cannot parse. The first pattern that matches is used.
_BEGINNINGS = tuple(re.compile(text, re.IGNORECASE) for text in (r"://[^:]*:", r"passw(?:or)?d\s*=", r"^[^:=]*:"))
_SEPARATORS = re.compile(r"[\s@:/?#&'\"\\,;]+")

_ENCODE: Final = "percent-encode user and password (@ as %40, / as %2F, : as %3A, % as %25, a blank as %20)"


def parse(dsn: str) -> dict[str, Any]:
    """Return the parameters of a connection string; raises ConfigurationError, whose message contains none of them."""
    try:
        return conninfo_to_dict(dsn)
    # ValueError: the string contains a NUL or a lone surrogate.
    except (psycopg.Error, ValueError):
        advice = _advice(dsn)
    raise ConfigurationError(
        f"the DSN cannot be parsed (it is not shown because parts of it may belong to the password): {advice}"
    )


def ambiguity(dsn: str) -> str | None:
    """Return why libpq may parse a connection string differently from what was meant, and the remedy; else None."""
    parts = parse(dsn)
    url = _URL.match(dsn.strip())
    if url and url["rest"].partition("?")[0].count("@") > 1:
        return f"the DSN contains more than one @: {_ENCODE}"
    if url and "@" in str(parts.get("dbname", "")) + str(parts.get("host", "")):
        return f"the DSN contains an @ after a /: {_ENCODE}"
    if re.search("[=;]", str(parts.get("host", ""))):
        return _advice(dsn)
    if not _PORTS.fullmatch(str(parts.get("port") or "")):
        return f"the port in the DSN is not a number: {_ENCODE}" if url else _advice(dsn)
    if _password_in_user(parts):
        return "the user in the DSN contains a colon, but there is no password: percent-encode both, not the : between"
    return None


def display(dsn: str) -> str:
    """Return the parameters of a connection string that may be shown, with passwords masked."""
    try:
        ambiguous = ambiguity(dsn) is not None
        parts = parse(dsn)
    except ConfigurationError:
        ambiguous, parts = True, {}
    if ambiguous:
        return "(not shown: parts of it may belong to the password)"
    shown = {name: MASK if name in _SECRET else parts[name] for name in _SHOWN if parts.get(name)}
    return redact(make_conninfo("", **shown))


def short_name(dsn: str) -> str:
    """Return the database and its server in a few characters, for titles: shop@db1.example.org:5432.

    A part that the connection string does not name is left out; an empty string says that libpq's variables name them.
    """
    try:
        ambiguous, parts = ambiguity(dsn) is not None, parse(dsn)
    except ConfigurationError:
        ambiguous, parts = True, {}
    if ambiguous:
        return "(not shown: parts of it may belong to the password)"
    server = str(parts.get("host") or parts.get("hostaddr") or parts.get("service") or "")
    if server and parts.get("port"):
        server = f"{server}:{parts['port']}"
    return redact("@".join(filter(None, (str(parts.get("dbname") or ""), server))))


def secrets(dsn: str) -> set[str]:
    """Return the passwords of a connection string; if it is ambiguous, every substring that may be part of one."""
    try:
        parts = parse(dsn)
        ambiguous = ambiguity(dsn) is not None
    except ConfigurationError:
        parts, ambiguous = {}, True
    found = {str(parts[name]) for name in _SECRET if parts.get(name)}
    found |= {secret.strip() for secret in found} | _password_in_user(parts)
    names = {str(parts.get(name)) for name in ("user", "host", "dbname")}
    return (found - names) | (_pieces(dsn) if ambiguous else set())


def _password_in_user(parts: dict[str, Any]) -> set[str]:
    """Return what follows a colon in the user if there is no password: u:p may have been encoded as a whole, u%3Ap."""
    _, colon, rest = str(parts.get("user") or "").partition(":")
    return {rest} if colon and not parts.get("password") else set()


def _pieces(dsn: str) -> set[str]:
    begin = next((found for pattern in _BEGINNINGS if (found := pattern.search(dsn))), None)
    text = dsn[begin.end() :] if begin else dsn
    if "@" in text:
        text = text.rpartition("@")[0]
    # The names of further options are left out: they are ordinary words that occur in many messages.
    return {piece for piece in (text.strip(), *_SEPARATORS.split(text)) if piece and not re.match(r"[a-z_]+=", piece)}


def _advice(dsn: str) -> str:
    """Return the remedy for a connection string that libpq cannot parse, or parses differently from what was meant."""
    text = dsn.strip()
    if text[:1] in ("'", '"') and "://" in text:
        return "remove the quotation marks"
    if url := _URL.match(text):
        rest, last = url["rest"], url["rest"].rfind("@")
        if "@" in rest and rest.find("?") > last:
            unknown = [name for name in _QUERY.findall(rest[rest.find("?") :]) if not _known(name)]
            if unknown:
                return f"libpq has no option {unknown[0]!r}: remove it from the URL"
        if re.search(r"\s", rest):
            return (
                "it contains a blank or a line break: remove it (a secret read from a file?) or write it as %20 or %0A"
            )
        return f"in a URL {_ENCODE}"
    if "://" in text or re.match(r"[^\s=]*:[^\s=]*@", text):
        return f"it must begin with postgresql://; {_ENCODE}"
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
