"""A parsed filter: terms that a job must all match."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from qworker.filters.keys import RETRYING, STATES
from qworker.job import JobState

#: What a value is compared with: a string, a number, seconds, or a time.
Operand = str | int | float | Decimal | datetime

#: Strings that need no quotes.
_PLAIN = re.compile(r"[^\s,\"*<>=][^\s,\"*]*")
_PLAIN_SEGMENT = re.compile(r"[^\s,\":.]+")


@dataclass(frozen=True, slots=True)
class Value:
    """One of the values of a term; a term matches if one of its values does."""

    operand: Operand
    #: "=", "<", "<=", ">", ">=", or "*": the operand is the beginning.
    comparison: str = "="
    #: As it was written, without quotes.
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        text = self.operand.isoformat() if isinstance(self.operand, datetime) else self.text or str(self.operand)
        written = text if _PLAIN.fullmatch(text) else quoted(text)
        if self.comparison == "*":
            return f"{written}*"
        return written if self.comparison == "=" else f"{self.comparison}{written}"


@dataclass(frozen=True, slots=True)
class Term:
    """A condition: a key and the values of which a job must have one, or none if it is negated."""

    key: str
    values: tuple[Value, ...]
    negated: bool = False
    #: The path to a value inside the arguments: names, and indexes of arrays.
    path: tuple[str, ...] = ()
    #: Where it begins in the text of the filter.
    position: int = field(default=0, compare=False)

    def __str__(self) -> str:
        path = f".{written_path(self.path)}" if self.path else ""
        return f"{'-' * self.negated}{self.key}{path}:{','.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Terms that a job must all match; without terms it matches all jobs. str() returns its text."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))

    def limited_to(self, states: Iterable[JobState]) -> "Filter":
        """Return a filter for those of its jobs that are in one of the given states."""
        values = tuple(Value(state.value) for state in states)
        wanted = {str(value.operand) for value in values}
        if self.states <= (wanted | {RETRYING} if JobState.SCHEDULED in wanted else wanted):
            return self
        return Filter((*self.terms, Term("state", values)))

    @property
    def states(self) -> frozenset[str]:
        """The states, including `retrying` as a state of its own, that its jobs can have according to its terms."""
        states = set(STATES)
        for term in self.terms:
            if term.key == "state":
                named = {str(value.operand) for value in term.values}
                if JobState.SCHEDULED in named:
                    named.add(RETRYING)
                states = states - named if term.negated else states & named
        return frozenset(states)

    def exact(self, key: str) -> tuple[str, ...] | None:
        """Return the values of which a job must have one, if a term says so without a comparison."""
        for term in self.terms:
            if term.key == key and not term.negated and all(value.comparison == "=" for value in term.values):
                return tuple(str(value.operand) for value in term.values)
        return None

    @property
    def ids(self) -> list[int] | None:
        """The ids of which a job must have one; None if no term names ids."""
        ids = self.exact("id")
        return None if ids is None else sorted({int(value) for value in ids})

    @property
    def unindexed(self) -> tuple[Term, ...]:
        """The terms that no index serves: jobs are read, newest first, and compared with them."""
        return tuple(term for term in self.terms if not self.is_indexed(term))

    def is_indexed(self, term: Term) -> bool:
        """Return whether an index serves a term of this filter."""
        if term.key == "id":
            return not term.negated
        if term.key == "fp":
            return not term.negated and self.exact("fp") is not None and not self.states & ENDED_STATES
        ready = self.states == {JobState.AVAILABLE} and self.exact("queue") is not None
        if term.key == "queue":
            return ready and not term.negated
        return term.key == "state" and (ready or self.states <= INDEXED_STATES)


#: The states of jobs in the history.
ENDED_STATES = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED})
#: States of which there are few jobs usually, in indexes of their own.
INDEXED_STATES = frozenset({"failed", "running", "scheduled", RETRYING})


def written_path(path: Iterable[str]) -> str:
    """Return a path to a value inside the arguments as it is written in a filter: user.id, "a b".0."""
    return ".".join(part if _PLAIN_SEGMENT.fullmatch(part) else quoted(part) for part in path)


def quoted(text: str) -> str:
    """Return a string as it is written in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
