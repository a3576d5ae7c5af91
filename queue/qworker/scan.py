"""The statements of one search: ranges of ids that are compared with a filter, or the entries of small indexes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import namedtuple_row

from qworker.db.statements import Database, load
from qworker.filters import Filter
from qworker.filters.conditions import Conditions
from qworker.filters.keys import RETRYING
from qworker.filters.model import ENDED_STATES, INDEXED_STATES
from qworker.fingerprint import from_hex
from qworker.job import JobState, to_datetime

#: Ids that one statement covers.
SLICE = 50_000
#: Entries up to which an index is read as a whole, instead of jobs in the order of their ids.
FEW = 10_000
#: Of these entries, jobs that one statement reads.
CHUNK = 500
#: Above all ids, and below them.
ABOVE, BELOW = 2**63 - 1, -(2**63)


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids of matching jobs, newest first, for an operation on them."""

    ids: list[int]
    #: All matching jobs that are left have lower ids; None if there are none.
    below: int | None


class Scan:
    """The statements of one search on one connection."""

    def __init__(
        self, conn: Database, schema: str, wanted: Filter, now: float | None = None, size: int | None = None
    ) -> None:
        """Now is the time to which durations relate (seconds since 1970); by default the time of each statement.

        size: the number of ids in a slice; SLICE by default.
        """
        self._conn = conn
        self._wanted = wanted
        self._size = size or SLICE
        conditions = Conditions(schema)
        self._sql = load("search", schema)
        self._condition, self._parameters = conditions.compile(wanted)
        self._parameters["now"] = now
        self._run = conditions.expression("run")
        self._part = self._sql[_part(wanted.states)]
        #: The ids to which the search is restricted; None if all have to be compared.
        self.only: list[int] | None = wanted.ids
        #: Whether only failed jobs can match, and they are too many to be read at once: `only` has some of them.
        self._walks_failed = False
        #: The statements that read the indexes that serve the filter.
        self.indexes = _indexes(wanted) if self.only is None else []

    def read_indexes(self) -> None:
        """Restrict the search to the entries of the indexes, if they are few."""
        queues = list(self._wanted.exact("queue") or ())
        fingerprints = [from_hex(text) for text in self._wanted.exact("fp") or ()]
        sources = f" {self._sql['union']} ".join(self._sql[name] for name in self.indexes)
        found = self._execute(
            self._sql["few"].replace("{sources}", sources), few=FEW + 1, queues=queues, fingerprints=fingerprints
        )
        ids = found[0][0] or []
        self.only = ids if len(ids) <= FEW else None
        self._walks_failed = self.only is None and self._wanted.states == {JobState.FAILED}

    @property
    def bounded(self) -> bool:
        """Whether all jobs that can match are known, and few."""
        return self.only is not None and not self._walks_failed

    def slices(self, high: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of ids below `high`, from the newest on; ranges without jobs are skipped."""
        if self._walks_failed:
            while ids := self._failed("failed_below", high=high):
                high = ids[-1]
                yield high, ids[0] + 1
            return
        if self.only is not None:
            yield from self._chunks(sorted((job for job in self.only if job < high), reverse=True))
            return
        while (top := self.value("highest", high=high)) is not None:
            high = max(top - self._size + 1, BELOW)
            yield high, top + 1

    def slices_up(self, low: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of ids from `low` on, from the oldest on."""
        if self._walks_failed:
            while ids := self._failed("failed_above", low=low):
                low = ids[-1] + 1
                yield ids[0], low
            return
        if self.only is not None:
            yield from self._chunks(sorted(job for job in self.only if job >= low))
            return
        while (bottom := self.value("lowest", low=low)) is not None:
            low = min(bottom + self._size, ABOVE)
            yield bottom, low

    def _failed(self, statement: str, **start: int) -> list[int]:
        """Restrict the search to the next failed jobs; return their ids."""
        self.only = [row.id for row in self._execute(self._sql[statement], limit=CHUNK, **start)]
        return self.only

    def _chunks(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            yield min(chunk), max(chunk) + 1

    def batch(self, below: int, limit: int) -> Batch:
        """Return the next ids below another, from one slice."""
        for low, high in self.slices(below):
            ids = [row.id for row in self.rows("ids", low=low, high=high, limit=limit)]
            if len(ids) >= limit:
                return Batch(ids, ids[-1])
            more = any(job < low for job in self.only or ()) if self.bounded else low > BELOW
            return Batch(ids, low if more else None)
        return Batch([], None)

    def reached(self, low: int, high: int, *, last: bool = False) -> datetime | None:
        """Return when the first job of a range was enqueued, or the last."""
        if self._walks_failed:  # the range was that before the present one
            self.only = [high - 1 if last else low]
        if last:
            low = self.value("highest", high=high)
        return to_datetime(self.value("enqueued", low=low, high=high))

    def rows(self, statement: str, **parameters: Any) -> list[Any]:
        """Execute a statement for the filter."""
        text = self._sql[statement].replace("{condition}", self._condition).replace("{part}", self._part)
        if self.only is not None:
            text = text.replace(self._part, self._sql["only"], 1)
            low, high = parameters.get("low", BELOW), parameters.get("high", ABOVE)
            parameters["only"] = [job for job in self.only if low <= job < high]
        return self._execute(text.replace("{run}", self._run), **parameters)

    def value(self, statement: str, **parameters: Any) -> Any:
        """Return the only value of a statement, or None."""
        found = self.rows(statement, **parameters)
        return found[0][0] if found else None

    def _execute(self, text: Any, **parameters: Any) -> list[Any]:
        cursor = self._conn.cursor(row_factory=namedtuple_row)
        return cursor.execute(text, self._parameters | parameters).fetchall()


def _part(states: frozenset[str]) -> str:
    """Return the name of the part of the view that has jobs in these states."""
    if states <= ENDED_STATES:
        return "ended"
    return "all" if states & ENDED_STATES else "unfinished"


def _indexes(wanted: Filter) -> list[str]:
    """Return the statements that read all jobs that a filter can match from indexes; none if no index has them all."""
    states = wanted.states
    if not states & ENDED_STATES and wanted.exact("fp") is not None:
        return ["few_with_fingerprint"]
    if states <= INDEXED_STATES:
        return sorted(f"few_{state}" for state in states if state != RETRYING or JobState.SCHEDULED not in states)
    return ["few_available"] if states == {JobState.AVAILABLE} and wanted.exact("queue") else []
