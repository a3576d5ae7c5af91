"""Select rows other than jobs, such as queues and nodes, by the terms of a filter."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from qworker.filters.model import Filter, Term, Value
from qworker.filters.parse import InvalidFilter

R = TypeVar("R")


def select(
    wanted: Filter, text: str, rows: Iterable[R], fields: Mapping[str, Callable[[R], Collection[str]]]
) -> list[R]:  # fmt: skip
    """Return the rows that match all terms; fields has the values of a row by key.

    Raises InvalidFilter with the position in the text if a term has another key.
    """
    check(wanted, text, fields)
    return [row for row in rows if all(_matches(term, fields[term.key](row)) for term in wanted.terms)]


def check(wanted: Filter, text: str, keys: Collection[str]) -> None:
    """Raise InvalidFilter if a term has another key than these."""
    for term in wanted.terms:
        if term.key not in keys:
            names = ", ".join(f"{key}:" for key in keys)
            message = f"these rows can be filtered by {names} only" if keys else "these rows cannot be filtered"
            raise InvalidFilter(message, text, term.position)


def _matches(term: Term, values: Collection[str]) -> bool:
    return any(_equals(value, found) for value in term.values for found in values) != term.negated


def _equals(value: Value, found: str) -> bool:
    wanted = str(value.operand)
    return found.startswith(wanted) if value.comparison == "*" else found == wanted
