"""Words for findings: quoted names and values, sizes, and the remedies that many checks share."""

import re
from collections.abc import Iterable

from qworker.doctor import Row

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_UNIT = 1024


def identifier(name: str) -> str:
    """Return a name for SQL, quoted unless it is plain."""
    return name if _PLAIN.fullmatch(name) else '"{}"'.format(name.replace('"', '""'))


def literal(value: str) -> str:
    """Return a string for SQL."""
    return "'{}'".format(value.replace("'", "''"))


def size(count: float) -> str:
    """Return a number of bytes in the largest unit that fits."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < _UNIT or unit == "TiB":
            break
        value /= _UNIT
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004


def count(number: float, noun: str, *, capped: float = float("inf")) -> str:
    """Return a number with its noun: "1 job", "2,000 jobs", "10,000 jobs or more"."""
    text = f"{number:,.0f} {noun}" + ("" if number == 1 else "s")
    return f"{text} or more" if number >= capped else text


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names separated by commas, the first ones of many."""
    found = list(names)
    rest = len(found) - most
    return ", ".join(found[:most]) + (f" and {rest} more" if rest > 0 else "")


def session(row: Row) -> str:
    """Return who a session is: its pid, role, application and address."""
    application = f", application {row['application']!r}" if row.get("application") else ""
    client = f", from {row['client']}" if row.get("client") else ""
    return f"session {row['pid']} (role {row['role'] or 'unknown'}{application}{client})"


def terminate(pid: int) -> str:
    """Return the SQL that ends a session."""
    return f"SELECT pg_terminate_backend({pid});"
