"""Messages about names that do not exist: the value, the nearest name that does exist, and where all are listed."""

from collections.abc import Iterable
from difflib import get_close_matches

from qworker import program


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that resembles this one most; None if none does."""
    return next(iter(get_close_matches(name, list(known), n=1)), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the nearest name; an empty string if there is none."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


def instead(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown word: the nearest one, or one of all."""
    known = list(known)
    near = nearest(name, known)
    return f"expected one of {', '.join(known)}" if near is None else f"did you mean {near!r}?"


def not_found(noun: str, name: str | int, known: Iterable[str] = (), *, listing: str) -> str:
    """Return the message about a thing that does not exist; `listing` is the subcommand that lists all."""
    hint = suggestion(str(name), known) or ";"
    return f"{noun} {name!r} not found{hint} `{program.command(listing)}` lists all"
