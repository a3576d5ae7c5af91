"""What a table is: which rows it has, by which columns, and by what the rows can be filtered."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qworkerd.top.columns import DIM, PLAIN, Column

R = TypeVar("R")


@dataclass(frozen=True)
class View(Generic[R]):
    """A table."""

    name: str
    columns: Sequence[Column[R]]
    #: What identifies a row from one refresh to the next.
    key: Callable[[R], Any]
    #: The column by which the rows are sorted first; None for the order in which they are read.
    sort: int | None = None
    #: What is shown if there are no rows.
    empty: str = ""
    #: The keys of filters that select rows, each with the values of a row. None: the filter selects jobs.
    fields: Mapping[str, Callable[[R], Collection[str]]] | None = None


def dim_zero(of: Callable[[Any], int]) -> Callable[[Any], str]:
    """Return a style by which zeros are dim."""
    return lambda row: PLAIN if of(row) else DIM


def none_first(of: Callable[[Any], float | None]) -> Callable[[Any], tuple[bool, float]]:
    """Return a key by which rows without a value are the smallest."""

    def key(row: Any) -> tuple[bool, float]:
        value = of(row)
        return (value is not None, value or 0.0)

    return key
