"""Reads what a tab shows, on one connection that is read-only and has short timeouts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Any

import psycopg

from qworker.admin import Admin
from qworker.counts import Counts
from qworker.db.pool import Connection, Pool
from qworker.depth import QueueDepth
from qworker.error_groups import ErrorGroup
from qworker.filters import Filter
from qworker.filters.rows import select
from qworker.findings import Finding, Severity
from qworker.search import Page
from qworker.snapshot import MAX_JOBS, Snapshot, Snapshots
from qworker.statistics import Point
from qworkerd.top.job_views import FAILED, GROUPS, RUNNING
from qworkerd.top.view import View
from qworkerd.top.views import DOCTOR, NODES, QUEUES, SCHEDULES

#: Limits of each statement (seconds).
STATEMENT_TIMEOUT, LOCK_TIMEOUT = 2.0, 0.2
#: Time after which the checks of the doctor are made again, and the time that they may take of one refresh (seconds).
CHECK_INTERVAL, CHECK_TIME = 30.0, 0.25


#: Findings are ordered by their severity.
ORDER = {severity: number for number, severity in enumerate(Severity)}


class Tab(StrEnum):
    """The tabs, in their order."""

    OVERVIEW = "overview"
    QUEUES = "queues"
    RUNNING = "running"
    FAILURES = "failures"
    NODES = "nodes"
    SCHEDULES = "schedules"
    DOCTOR = "doctor"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the checks of the doctor have found."""

    findings: Sequence[Finding]
    #: What could not be checked, and why.
    notes: Sequence[str] = ()


#: Makes one check of the doctor on a connection.
Check = Callable[[Connection], Diagnosis]


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be read: a tab, and the filter of its rows."""

    tab: Tab
    wanted: Filter = field(default_factory=Filter)
    text: str = ""
    #: Whether the failures are shown as jobs instead of groups.
    jobs: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """What a tab shows."""

    query: Query
    snapshot: Snapshot
    #: The rows of the tab's table.
    rows: Sequence[Any] = ()
    #: The overview: counts by minute, sizes of all queues together, groups of errors, findings.
    chart: Sequence[Point] = ()
    depths: Sequence[QueueDepth] = ()
    groups: Sequence[ErrorGroup] = ()
    diagnosis: Diagnosis | None = None
    #: What is missing in the rows.
    note: str = ""

    @property
    def counts(self) -> Counts:
        """What was counted in the last hour."""
        return self.snapshot.counts


_VIEWS: Mapping[Tab, View[Any]] = {
    Tab.QUEUES: QUEUES, Tab.RUNNING: RUNNING, Tab.NODES: NODES, Tab.SCHEDULES: SCHEDULES, Tab.DOCTOR: DOCTOR,
}  # fmt: skip


def view_of(query: Query) -> View[Any] | None:
    """Return the table that a query fills; None for the overview."""
    if query.tab is Tab.FAILURES:
        return FAILED if query.jobs else GROUPS
    return _VIEWS.get(query.tab)


class Reader:
    """Reads frames, one at a time."""

    def __init__(self, pool: Pool, checks: Sequence[Check]) -> None:
        """The pool names the database."""
        self._pool = Pool(
            pool.dsn, pool.schema, size=1, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT,
            writable=False,
        )  # fmt: skip
        #: Reads on the same connection.
        self.admin = Admin(self._pool)
        self._snapshots = Snapshots(self.admin)
        self._checks = checks
        #: The results of the checks, in their order, and those that are left of this round.
        self._results: dict[int, Diagnosis] = {}
        self._left: list[int] = []
        self._round_at = 0.0

    def read(self, query: Query, *, check_time: float = CHECK_TIME) -> Frame:
        """Return what a tab shows; raises InvalidFilter if its rows do not have what the filter compares.

        check_time: how long the checks of the doctor may take (seconds); the rest is made by the next calls.
        """
        snapshot = self._snapshots.snapshot()
        if query.tab is Tab.OVERVIEW:
            return Frame(
                query, snapshot, chart=self._snapshots.chart(), depths=self._snapshots.depths(),
                groups=self._snapshots.error_groups(), diagnosis=self.diagnosis(check_time),
                note=" · ".join(snapshot.notes),
            )  # fmt: skip
        if query.tab is Tab.RUNNING:
            running = self._snapshots.running(snapshot.nodes, query.wanted)
            note = f"only the {MAX_JOBS} oldest jobs" if len(running) >= MAX_JOBS else ""
            return Frame(query, snapshot, rows=running, note=note)
        if query.tab is Tab.FAILURES:
            return self._failures(query, snapshot)
        diagnosis = self.diagnosis(check_time) if query.tab is Tab.DOCTOR else None
        rows = self._rows(query.tab, snapshot, diagnosis)
        view = view_of(query)
        if query.wanted.terms and view is not None:
            rows = select(query.wanted, query.text, rows, view.fields or {})
        note = " · ".join(diagnosis.notes if diagnosis else snapshot.notes)
        return Frame(query, snapshot, rows=rows, diagnosis=diagnosis, note=note)

    def _rows(self, tab: Tab, snapshot: Snapshot, diagnosis: Diagnosis | None) -> Sequence[Any]:
        if tab is Tab.QUEUES:
            return snapshot.queues
        if tab is Tab.NODES:
            return snapshot.nodes
        return self._snapshots.schedules() if diagnosis is None else diagnosis.findings

    def diagnosis(self, limit: float = CHECK_TIME) -> Diagnosis:
        """Return what the checks have found, after making some of those that are due.

        limit: the time after which no further check is begun (seconds). A round begins every CHECK_INTERVAL seconds.
        """
        began = monotonic()
        if not self._left and (not self._round_at or began - self._round_at > CHECK_INTERVAL):
            self._round_at, self._left = began, list(range(len(self._checks)))
        while self._left and monotonic() - began < limit:
            number = self._left[0]
            with self._pool.connection(None) as conn:
                self._results[number] = self._checks[number](conn)
            self._left.pop(0)
        results = [self._results[number] for number in sorted(self._results)]
        findings = sorted((one for result in results for one in result.findings), key=lambda one: ORDER[one.severity])
        return Diagnosis(findings, list(dict.fromkeys(note for result in results for note in result.notes)))

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _failures(self, query: Query, snapshot: Snapshot) -> Frame:
        if not query.jobs:
            return Frame(query, snapshot, rows=self._snapshots.error_groups())
        page = self._snapshots.failed(query.wanted)
        return Frame(query, snapshot, rows=page.jobs, note=_searched(page))


def _searched(page: Page) -> str:
    if page.cursor is None:
        return ""
    if page.looked_back_to is None:
        return f"the newest {len(page.jobs)} jobs"
    return (
        f"only jobs enqueued since {page.looked_back_to.astimezone():%Y-%m-%d %H:%M:%S} were compared with the filter"
    )


def describe(error: BaseException) -> str:
    """Return the reason of an error on one line."""
    if isinstance(error, psycopg.Error):
        parts = (error.diag.message_primary, error.diag.message_hint)
        return "; ".join(part for part in parts if part) or " ".join(str(error).split())
    return " ".join(str(error).split()) or type(error).__name__
