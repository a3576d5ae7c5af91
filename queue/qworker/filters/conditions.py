"""Turns a filter into a condition of SQL, whose values are all parameters."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, LiteralString

from qworker.db.statements import load
from qworker.filters.keys import KEYS, RETRYING, Kind
from qworker.filters.model import Filter, Term, Value
from qworker.fingerprint import from_hex

_PARAMETER = re.compile(r"%\((?!now\))(\w+)\)s")
#: Hexadecimal digits of a fingerprint.
DIGITS = 16
_COMPARISONS = {">": "greater", ">=": "greater_or_equal", "<": "less", "<=": "less_or_equal"}
#: Keys whose expression is an array.
_ARRAYS = ("tag", "error", "node")


class Conditions:
    """Joins the statements of filters.sql for one schema."""

    __slots__ = ("_sql",)

    def __init__(self, schema: str) -> None:
        found = load("filters", schema)
        self._sql = {name: _body(text).replace("{now}", _body(found["now"])) for name, text in found.items()}

    def compile(self, wanted: Filter) -> tuple[LiteralString, dict[str, Any]]:
        """Return the condition for a row `j` of the view `jobs`, and its parameters.

        The parameter `now` is added by the caller: the time to which durations relate (seconds since 1970), or None for
        the database's clock.
        """
        if not wanted.terms:
            return self._sql["everything"], {}
        parameters: dict[str, Any] = {}
        terms = []
        for number, term in enumerate(wanted.terms):
            alternatives = [
                self._numbered(text, values, f"t{number}_{index}", parameters)
                for index, (text, values) in enumerate(self._alternatives(term))
            ]
            joined = self._join("or", alternatives)
            terms.append(self._sql["none_of" if term.negated else "group"].replace("{condition}", joined))
        return self._join("and", terms), parameters

    def expression(self, key: str) -> LiteralString:
        """Return what a key compares."""
        return self._sql[key]

    def _join(self, conjunction: str, conditions: Sequence[LiteralString]) -> LiteralString:
        return f"\n{self._sql[conjunction]} ".join(conditions)

    def _numbered(
        self, text: LiteralString, values: dict[str, Any], name: str, parameters: dict[str, Any]
    ) -> LiteralString:
        """Give the parameters of a condition names of their own."""
        for parameter, value in values.items():
            parameters[f"{name}_{parameter}"] = value
        return _PARAMETER.sub(rf"%({name}_\1)s", text)

    def _alternatives(self, term: Term) -> Iterator[tuple[LiteralString, dict[str, Any]]]:
        """Yield the conditions of which a job must match one, each with its parameters."""
        kind = KEYS[term.key].kind
        if kind is Kind.FINGERPRINT:
            yield from self._fingerprints(term)
            return
        equal = [value.operand for value in term.values if value.comparison == "="]
        prefixes = [value.operand for value in term.values if value.comparison == "*"]
        compared = [value for value in term.values if value.comparison in _COMPARISONS]
        path = {"path": list(term.path)} if kind is Kind.ARGUMENT else {}
        match kind:
            case Kind.CHOICE:
                yield from self._choices(term.key, equal)
            case Kind.PHRASE:
                yield from ((self._comparing("contains", term.key), {"value": phrase}) for phrase in equal)
            case Kind.TIME:
                name = "greater_or_equal" if term.key == "after" else "less"
                yield from ((self._comparing(name, "enqueued"), {"value": _operand(value)}) for value in term.values)
            case Kind.INTEGER if equal:
                yield self._comparing("equals_one_of", term.key), {"numbers": equal}
            case Kind.TEXT | Kind.ARGUMENT if equal:
                name = "has_one_of" if term.key in _ARRAYS else "is_one_of"
                yield self._comparing(name, term.key), {"texts": equal} | path
            case _:
                pass
        if prefixes:
            name = "has_beginning" if term.key in _ARRAYS else "begins_with"
            yield self._comparing(name, term.key), {"prefixes": prefixes} | path
        for value in compared:
            name = "args_number" if kind is Kind.ARGUMENT else term.key
            yield self._comparing(_COMPARISONS[value.comparison], name), {"value": _operand(value)} | path

    def _fingerprints(self, term: Term) -> Iterator[tuple[LiteralString, dict[str, Any]]]:
        for value in term.values:
            # All digits, or a beginning: a range of numbers.
            digits = str(value.operand)
            limits = {"low": from_hex(digits.ljust(DIGITS, "0")), "high": from_hex(digits.ljust(DIGITS, "f"))}
            yield self._comparing("between", term.key), limits

    def _choices(self, key: str, words: Sequence[object]) -> Iterator[tuple[LiteralString, dict[str, Any]]]:
        if key == "by":
            yield from ((self._sql[f"by_{word}"], {}) for word in words)
            return
        if states := [word for word in words if word != RETRYING]:
            yield self._comparing("is_one_of", key), {"texts": states}
        if RETRYING in words:
            yield self._sql["retrying"], {}

    def _comparing(self, comparison: str, compared: str) -> LiteralString:
        return self._sql[comparison].replace("{compared}", self._sql[compared])


def _operand(value: Value) -> Any:
    return value.operand.timestamp() if isinstance(value.operand, datetime) else value.operand


def _body(text: LiteralString) -> LiteralString:
    """Return a part without the comment before it."""
    lines = text.splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))
