"""Makes the cheap checks of `qworker doctor` once a minute, on one node of the cluster, and reports what changes."""

from collections.abc import Iterable

import psycopg

from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import Database
from qworker.doctor import Doctor, Row
from qworker.findings import Finding, Severity
from qworkerd import log
from qworkerd.doctor.catalogue import CHECKS
from qworkerd.doctor.changes import KnownFindings
from qworkerd.doctor.check import Check, Subject
from qworkerd.doctor.examination import explain_rows
from qworkerd.outcomes.reports import Reporter
from qworkerd.scheduler.maintenance import MORE
from qworkerd.shared.context import NodeContext

#: How often the checks are made, and how often one is tried again that failed (seconds, rounds).
CHECKUP_INTERVAL, RETRY_ROUNDS = 60.0, 60
#: The limit of the statement (seconds): it must not delay the renewal of the lease.
TIMEOUT = 1.0
LEVELS = {Severity.STOPS: "error", Severity.WARNING: "warning", Severity.HINT: "info"}


class Checkup:
    """The checks of one scheduler.

    All checks are sent as one statement, so that an idle node sends few. If it fails, each check is made by itself, one
    in each turn, and those that fail are left out for an hour.
    """

    def __init__(self, node: NodeContext, reporter: Reporter, statement_timeout: float) -> None:
        """statement_timeout is the limit of the session, which is restored afterwards."""
        self._node = node
        self._reporter = reporter
        self._session_timeout = statement_timeout
        self._doctor = Doctor(node.settings.schema)
        self._known = KnownFindings()
        #: The server of the connection that was used last.
        self._subject: Subject | None = None
        self._connection: Database | None = None
        self._round = 0
        #: The checks that have failed, each with the round from which on it is made again.
        self._excluded: dict[str, int] = {}
        #: The checks that are made one by one, because the statement for all of them has failed.
        self._remaining: list[Check] = []
        #: The checks whose last rows could not be explained as a whole.
        self._unexplained: set[str] = set()
        self._log = log.get()

    def findings(self) -> list[Finding]:
        """Return what was found, and is not resolved yet; nothing on a node that does not make the checks."""
        return self._known.current()

    def run(self, database: Database, others: Iterable[int]) -> object:
        """Make the checks if no other node is older; others are the ids of the registered ones."""
        own = self._node.table.header.node
        if not own or any(other < own for other in others):
            self._known.reset()
            self._remaining = []
            return None
        subject = self._subject_of(database)
        if self._remaining:
            self._one(database, subject, self._remaining.pop())
            return MORE if self._remaining else None
        self._round += 1
        checks = [check for check in CHECKS if self._included(check, subject)]
        try:
            findings = self._all(database, subject, checks)
        except psycopg.Error as error:
            if database.closed:
                raise
            self._log.info("doctor.checks_separate", error=str(error).strip())
            self._remaining = checks
            return MORE
        self._report(findings, checks)
        return None

    def _subject_of(self, database: Database) -> Subject:
        if self._subject is None or self._connection is not database:
            server = self._doctor.server(database)
            self._subject = Subject(server, self._node.settings.schema, is_pooled(database))
            self._connection = database
        return self._subject

    def _included(self, check: Check, subject: Subject) -> bool:
        applicable = check.cheap and check.since <= subject.server.version <= check.until
        return applicable and self._excluded.get(check.id, 0) <= self._round

    def _all(self, database: Database, subject: Subject, checks: list[Check]) -> list[Finding]:
        parameters: dict[str, object] = {}
        for check in checks:
            parameters |= check.parameters(subject.schema)
        # Several checks may explain the rows of the same statement, which is sent once.
        statements = list(dict.fromkeys((check.area, check.statement) for check in checks))
        with self._limited(database, subject):
            rows = self._doctor.combined(database, statements, parameters)
        findings = []
        for check in checks:
            number = statements.index((check.area, check.statement))
            findings += self._explained(check, (row for of, row in rows if of == number), subject)
        return findings

    def _explained(self, check: Check, rows: Iterable[Row], subject: Subject) -> list[Finding]:
        """Return the findings of rows. That one cannot be explained is logged once."""
        findings, problem = explain_rows(check, rows, subject)
        if problem and check.id not in self._unexplained:
            self._log.warning("doctor.check_failed", check=check.id, error=problem)
        if problem:
            self._unexplained.add(check.id)
        else:
            self._unexplained.discard(check.id)
        return findings

    def _one(self, database: Database, subject: Subject, check: Check) -> None:
        try:
            with self._limited(database, subject):
                rows = self._doctor.rows(database, check.area, check.statement, check.parameters(subject.schema))
        except psycopg.Error as error:
            if database.closed:
                raise
            self._excluded[check.id] = self._round + RETRY_ROUNDS
            self._log.warning("doctor.check_failed", check=check.id, error=str(error).strip())
            return
        self._report(self._explained(check, rows, subject), [check])

    def _limited(self, database: Database, subject: Subject) -> "_Limit":
        # The session behind a pooler is shared with others; there the limit of the scheduler applies.
        return _Limit(self._doctor, database, None if subject.pooled else (TIMEOUT, self._session_timeout))

    def _report(self, findings: list[Finding], checks: list[Check]) -> None:
        change = self._known.compare(findings, {check.id for check in checks})
        for finding in change.found:
            report = getattr(self._log, LEVELS[finding.severity])
            report(
                "doctor.finding", check=finding.check, about=finding.about or None,
                finding=finding.summary, remedy="; ".join(finding.remedy) or None, hint=finding.advice or None,
                see=finding.documentation,
            )  # fmt: skip
        for finding in change.resolved:
            self._log.info("doctor.resolved", check=finding.check, about=finding.about or None)
        for finding in change.found:
            self._reporter.finding(finding, resolved=False)
        for finding in change.resolved:
            self._reporter.finding(finding, resolved=True)
        self._known.accept(change)


class _Limit:
    """Limits the statements inside a `with` block."""

    def __init__(self, doctor: Doctor, database: Database, seconds: tuple[float, float] | None) -> None:
        self._doctor, self._database, self._seconds = doctor, database, seconds

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._doctor.limit(self._database, self._seconds[0])

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None and not self._database.closed:
            self._doctor.limit(self._database, self._seconds[1])
