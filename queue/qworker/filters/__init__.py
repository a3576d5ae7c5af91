"""The filter language, in which the command line, pages and operations describe jobs."""

from qworker.filters.keys import KEYS, Key
from qworker.filters.model import Filter, Term, Value
from qworker.filters.parse import MAX_LENGTH, MAX_VALUES, InvalidFilter, parse, parse_stored

__all__ = [
    "KEYS",
    "MAX_LENGTH",
    "MAX_VALUES",
    "Filter",
    "InvalidFilter",
    "Key",
    "Term",
    "Value",
    "parse",
    "parse_stored",
]
