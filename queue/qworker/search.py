"""Searches for jobs by a filter: page by page, and in bounded time, however many jobs there are.

A filter that no index serves is compared with job after job, from the newest on, in slices of ids. A search that has
reached its limit says how far it has looked, and continues from there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from time import monotonic
from typing import Any

import psycopg

from qworker.db.pool import Pool
from qworker.db.statements import Database, load
from qworker.filters import Filter
from qworker.job import Job, JobActions, job_from_row
from qworker.scan import ABOVE, BELOW, Scan

#: A search reads slices of SLICE ids. It ends after MAX_SLICES, unless they hold few jobs and take no time, or before a
#: slice that would probably take it over TIME_LIMIT (seconds): on a busy server a slice takes several times as long.
SLICE, MAX_SLICES, QUICK, TIME_LIMIT = 20_000, 30, 0.08, 0.12
#: The limit for a search that a person waits for: a command, or a page that looks further (seconds).
PATIENT = 1.5
#: The longest time of one statement (seconds), and of the one that reads small indexes. What it does not reach is
#: searched for in slices, which takes longer, and does not find a job that has been running for long.
STATEMENT_TIMEOUT, FEW_TIMEOUT = 2.0, 0.25
#: The longest wait for a lock, which only DDL takes (seconds), and the number of connections.
LOCK_TIMEOUT, MAX_CONNECTIONS = 0.2, 4
#: Of how many jobs `arguments` returns the arguments, how large these are at most (bytes), and the longest time of one
#: of its statements (seconds).
SAMPLE, MAX_ARGUMENTS, SAMPLE_TIMEOUT = 100, 20_000, 0.2
#: The largest number that `count` counts to unless it is given another.
MAX_COUNT = 10_000


class Order(StrEnum):
    """The order of the jobs of a page."""

    NEWEST = "newest"
    OLDEST = "oldest"
    #: By the time that their handlers have run, among the jobs that one search looks at.
    SLOWEST = "slowest"


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs that a search has found."""

    jobs: tuple[Job, ...]
    #: Pass it to the next search to continue; None at the end.
    cursor: int | None
    #: If the search has stopped at its limit: when the last job was enqueued at which it has looked. Otherwise None.
    looked_back_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs match a filter."""

    #: The number of jobs that were found.
    jobs: int
    #: Whether these are all. If not, the count or its time has reached the limit.
    exact: bool
    #: Set if the time was the limit: only jobs that were enqueued since then are counted.
    looked_back_to: datetime | None = None

    def __str__(self) -> str:
        return f"{self.jobs:,}" if self.exact else f"{self.jobs:,} or more"


class Search:
    """Searches in one schema, in read-only transactions with short timeouts, and on connections of its own.

    A slow search therefore never keeps a connection from the application, or a lock from the queue.
    """

    def __init__(self, pool: Pool, actions: JobActions | None = None, *, shared: bool = False) -> None:
        """The pool names the database; actions are those behind the methods of the jobs that are found.

        shared: search on the connections of the pool, whose timeouts are as short as those above.
        """
        self._pool = (
            pool
            if shared
            else Pool(
                pool.dsn,
                pool.schema,
                size=MAX_CONNECTIONS,
                statement_timeout=STATEMENT_TIMEOUT,
                lock_timeout=LOCK_TIMEOUT,
            )
        )
        self._actions = actions
        self._statements = load("search", pool.schema)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pool.close()

    def page(
        self, wanted: Filter, *, order: Order = Order.NEWEST, cursor: int | None = None, limit: int = 50,
        time_limit: float = TIME_LIMIT,
    ) -> Page:  # fmt: skip
        """Return up to `limit` jobs that match a filter; cursor is that of the page before.

        time_limit: seconds after which a search that no index serves stops, as far as its slices so far tell.
        """
        up, rows, budget = order is Order.OLDEST, list[Any](), _Budget(time_limit)
        done: tuple[int, int] | None = None
        with self._reading(wanted) as scan:
            start = (BELOW if up else ABOVE) if cursor is None else cursor + up
            for low, high in scan.slices_up(start) if up else scan.slices(start):
                if done is not None and not scan.bounded and budget.spent():
                    cursor = done[1] - 1 if up else done[0]
                    return Page(self._jobs(rows), cursor, scan.reached(*done, last=up))
                if order is Order.SLOWEST:
                    rows += scan.rows(order, low=low, high=high, limit=limit)
                    rows = sorted(rows, key=lambda row: -row.run)[:limit]
                else:
                    rows += scan.rows(order, low=low, high=high, limit=limit - len(rows))
                    if len(rows) >= limit:
                        return Page(self._jobs(rows), rows[-1].id)
                done = low, high
            return Page(self._jobs(rows), None)

    def count(
        self, wanted: Filter, *, below: int = ABOVE, limit: int = MAX_COUNT, time_limit: float = TIME_LIMIT
    ) -> Count:  # fmt: skip
        """Count the jobs that match a filter and whose ids are lower than `below`, up to a limit."""
        found, budget, done = 0, _Budget(time_limit), None
        with self._reading(wanted) as scan:
            for low, high in scan.slices(below):
                if done is not None and not scan.bounded and budget.spent():
                    return Count(found, exact=False, looked_back_to=scan.reached(*done))
                found += scan.value("count", low=low, high=high, limit=limit + 1 - found)
                if found > limit:
                    return Count(limit, exact=False)
                done = low, high
            return Count(found, exact=True)

    def arguments(self, wanted: Filter, *, limit: int = SAMPLE, time_limit: float = TIME_LIMIT) -> list[str]:
        """Return the arguments of the newest jobs that match a filter as JSON, without large ones.

        Whatever was found is returned when the time is over, or when a statement takes longer than SAMPLE_TIMEOUT.
        """
        found, budget, done = list[str](), _Budget(time_limit), False
        over = suppress(psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
        with over, self._reading(wanted, SAMPLE_TIMEOUT) as scan:
            for low, high in scan.slices(ABOVE):
                if done and not scan.bounded and budget.spent():
                    break
                ids = [row.id for row in scan.rows("ids", low=low, high=high, limit=limit)]
                limit -= len(ids)
                rows = scan.rows("arguments", ids=ids, largest=MAX_ARGUMENTS) if ids else []
                found += [row.args for row in rows]
                done = True
                if limit <= 0:
                    break
        return found

    def last_id(self) -> int:
        """Return the highest id of a job; 0 if there is none."""
        with self._reading(Filter()) as scan:
            return int(scan.value("highest", high=ABOVE) or 0)

    def _jobs(self, rows: list[Any]) -> tuple[Job, ...]:
        records = (row._asdict() for row in rows)
        return tuple(
            job_from_row({name: value for name, value in record.items() if name != "run"}, self._actions)
            for record in records
        )

    @contextmanager
    def _reading(self, wanted: Filter, timeout: float = STATEMENT_TIMEOUT) -> Iterator[Scan]:
        """Begin a search; timeout: the limit of each statement."""
        with self._pool.connection(None) as conn:
            conn.read_only = True
            with conn.transaction():
                scan = Scan(conn, self._pool.schema, wanted, size=SLICE)
                if timeout != STATEMENT_TIMEOUT:
                    self._limit(conn, timeout)
                if scan.indexes:
                    self._read_indexes(conn, scan, timeout)
                yield scan

    def _read_indexes(self, conn: Database, scan: Scan, timeout: float) -> None:
        try:
            with conn.transaction():  # a savepoint, which also undoes the limit
                self._limit(conn, min(FEW_TIMEOUT, timeout))
                scan.read_indexes()
        except psycopg.errors.QueryCanceled:  # an old snapshot keeps dead entries in the index
            return
        self._limit(conn, timeout)

    def _limit(self, conn: Database, timeout: float) -> None:
        conn.execute(self._statements["limit"], {"statement_timeout": f"{timeout:g}s"})


class _Budget:
    """What one search may cost."""

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._began = self._last = monotonic()
        self._slices = 0
        self._longest = 0.0

    def spent(self) -> bool:
        """Count a slice, before the next one; return whether it was the last one."""
        now = monotonic()
        self._slices += 1
        self._longest = max(self._longest, now - self._last)
        self._last, elapsed = now, now - self._began
        return elapsed + self._longest > self._time_limit or (self._slices >= MAX_SLICES and elapsed > QUICK)
